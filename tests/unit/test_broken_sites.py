"""A site whose files are broken is refused by every command, with file, reason and remedy, before any host is touched.

What is wrong with values, key by key, is in `BAD_SITES` (test_site_model.py holds the model to it, test_preflight.py plain Ansible).
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from lemonstand.errors import InputErrors
from lemonstand.policy import load_flows, load_timers
from lemonstand.site import build
from lemonstand.site.raw import RawSite
from lemonstand.site.reader import read
from sample_site import BAD_SITES, sound_site, write_site

PLAYBOOKS = Path(__file__).resolve().parents[2] / "playbooks"
SITE, HOSTS = "group_vars/all/site.yml", "hosts.yml"


def _append(name: str, text: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_text((folder / name).read_text(encoding="utf-8") + text, encoding="utf-8")


def _write(name: str, content: bytes) -> Callable[[Path], object]:
    def write(folder: Path) -> None:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)

    return write


def _gone(name: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).unlink()


BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "a bracket left open": (_append(SITE, "lemonstand_mail_domains: [\n"), SITE),
    "a tab": (_append(SITE, "lemonstand_extra:\n\t- x\n"), SITE),
    "a quote left open": (_append(SITE, 'lemonstand_site_name: "sample\n'), SITE),
    "a colon too many": (_append(SITE, "lemonstand_site_name: sample: two\n"), SITE),
    "Latin-1": (_write("group_vars/all/names.yml", b"lemonstand_site_name: M\xfcller\n"), "names.yml"),
    "a list for variables": (_write("group_vars/all/list.yml", b"- one\n- two\n"), "list.yml"),
    "text for variables": (_write("group_vars/all/text.yml", b"just words\n"), "text.yml"),
    "an unknown tag": (_append(SITE, "lemonstand_site_name: !secret sample\n"), SITE),
    "an anchor of nothing": (_append(SITE, "lemonstand_site_name: *nowhere\n"), SITE),
    "hosts: empty": (_write(HOSTS, b""), HOSTS),
    "hosts: a list": (_write(HOSTS, b"- edge\n- store\n"), HOSTS),
    "hosts: no YAML": (_write(HOSTS, b"all: [\n"), HOSTS),
    "hosts: gone": (_gone(HOSTS), HOSTS),
    "host_vars of nobody": (_write("host_vars/stroe.yml", b"lemonstand_clock_is_ours: true\n"), "stroe.yml"),
    "a template that is none": (_append(SITE, 'lemonstand_timer_profile: "{{ nonsense( }}"\n'), SITE),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_is_named(name: str, tmp_path: Path) -> None:
    spoil, where = BROKEN[name]
    folder = write_site(tmp_path, sound_site())
    spoil(folder)
    with pytest.raises(InputErrors) as caught:
        build(folder, RawSite.from_plain(read(folder, PLAYBOOKS)), load_flows(), load_timers())
    assert caught.value.exit_code == 2
    fitting = [problem for problem in caught.value.problems if where in problem.where]
    assert fitting, f"none names {where}:\n{caught.value}"
    assert all(problem.what and problem.remedy for problem in caught.value.problems)
    assert "Traceback" not in str(caught.value)


def test_there_are_many_ways() -> None:
    assert len({bad.name for bad in BAD_SITES}) + len(BROKEN) >= 90
    assert len({bad.name for bad in BAD_SITES}) == len(BAD_SITES)


@pytest.mark.parametrize("command", ["check", "plan", "apply", "verify"])
def test_no_command_reaches_a_host(command: str, tmp_path: Path) -> None:
    tree = sound_site()
    tree["all"]["lemonstand_tls_profile"] = "sloppy"
    folder = write_site(tmp_path / "site", tree)
    ssh = tmp_path / "bin" / "ssh"
    ssh.parent.mkdir()
    ssh.write_text(f"#!/bin/sh\ntouch '{tmp_path}/touched'\nexit 1\n", encoding="ascii")
    ssh.chmod(0o755)
    env = {
        **os.environ,
        "PATH": f"{ssh.parent}:{os.environ['PATH']}",
        "ANSIBLE_SSH_EXECUTABLE": str(ssh),
        "LEMONSTAND_STATE": str(tmp_path),
    }
    done = subprocess.run(
        [sys.executable, "-m", "lemonstand", command, "--site", str(folder)],
        check=False, capture_output=True, text=True, env=env, timeout=60,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert "error:  lemonstand_tls_profile" in done.stderr
    assert "site.yml:" in done.stderr
    assert "remedy: " in done.stderr
    assert not (tmp_path / "touched").exists()


def test_the_sound_site_is_sound(tmp_path: Path) -> None:
    folder = write_site(tmp_path, sound_site())
    assert yaml.safe_load((folder / HOSTS).read_text(encoding="utf-8"))
    build(folder, RawSite.from_plain(read(folder, PLAYBOOKS)), load_flows(), load_timers())
