"""`--limit` means what Ansible means by it, and names somebody: patterns are compared with what ansible-playbook itself does with them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from lemonstand import cli
from lemonstand.cli.deploy import with_needed
from lemonstand.errors import InputError
from lemonstand.site import load_site
from lemonstand.site.pattern import limited, match
from lemonstand.surroundings import environment
from sample_site import Tree, sound_site, write_site

MEANT = {
    "store": "store auth",
    "store,relay": "relay store auth",
    "store:relay": "relay store auth",
    "stores": "store auth",
    "frontends,relays": "frontend relay",
    " edge , relay ": "edge relay",
    "all:!store": "auth edge frontend relay",
    "all,!stores,!auths": "edge frontend relay",
    "store:!auth": "store",
    "stores:&store": "store auth",
    "~^(edge|relay)$": "edge relay",
    "~(st|ed)": "edge store auth",
    "re*": "relay",
    "*": "auth edge frontend relay store",
    "all": "auth edge frontend relay store",
    "all[0:1]": "edge frontend",
    "all[0]": "edge",
    "all[-1]": "relay",
    "*,!re*": "auth edge frontend store",
    "?????": "auth edge relay store",
    "edge": "edge",
}
NOBODY = [
    "stroe", "stroe,relay", "all:!stroe", "all:&stroe", "stores:&relays", "store,!store", "~^x", "zz*", "localhost", "127.0.0.1", "",
    " ", ",", "@/nowhere", "@/dev/null", "@/tmp", "~(", "store[5:9]", "--help", "sto re", "stör", "\udcff",
]  # fmt: skip


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sound site."""
    return write_site(tmp_path_factory.mktemp("site"), sound_site())


def said(site: Path, pattern: str) -> set[str]:
    """The hosts, in this process: what the process of its own would say."""
    found = match(str(site), pattern)
    return set() if found["unmatched"] else set(found["hosts"])


@pytest.mark.parametrize("pattern", MEANT)
def test_it_means_what_ansible_means(site: Path, pattern: str) -> None:
    wanted = set(MEANT[pattern].split())
    assert said(site, pattern) | ({"auth"} & wanted) == wanted


def test_ansible_itself_agrees(site: Path) -> None:
    play = site.parent / "play.yml"
    play.write_text("[{hosts: all, gather_facts: false, tasks: []}]", encoding="ascii")
    for pattern in ("store,relay", "all:!store", "~^(edge|relay)$", "all[0:1]"):
        command = [str(Path(sys.executable).parent / "ansible-playbook"), "-i", str(site), "--list-hosts", "--limit", pattern, str(play)]
        done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment())
        assert set(re.findall(r"^      (\S+)$", done.stdout, re.MULTILINE)) == said(site, pattern), pattern


@pytest.mark.parametrize("pattern", ["stroe,relay", "all:!stroe", "", "@/nowhere", "~("])
def test_nobody_is_refused_with_the_reason(site: Path, pattern: str) -> None:
    with pytest.raises(InputError) as caught:
        limited(site, pattern)
    assert "--limit" in caught.value.where or "/nowhere" in caught.value.where
    assert caught.value.remedy


def test_a_typo_is_told_with_what_was_meant(site: Path) -> None:
    with pytest.raises(InputError, match="'stroe' matches no host") as caught:
        limited(site, "relay,stroe")
    assert "store" in caught.value.remedy


@pytest.mark.parametrize("pattern", NOBODY)
def test_what_names_nobody_is_no_run(site: Path, pattern: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[Any] = []
    monkeypatch.setattr("lemonstand.cli.deploy.run_playbook", lambda *a, **k: ran.append(a))
    result = CliRunner().invoke(cli.main, ["apply", "--site", str(site), "--limit", pattern])
    assert (result.exit_code, ran) == (2, []), result.output
    assert "Traceback" not in result.output
    if pattern != "--help":
        assert "error:" in result.stderr


def test_a_file_of_hosts(site: Path, tmp_path: Path) -> None:
    (tmp_path / "site.retry").write_text("store\nrelay\n\n", encoding="ascii")
    assert set(limited(site, f"@{tmp_path}/site.retry").hosts) == {"store", "relay"}
    (tmp_path / "site.retry").write_text("store\nstroe\n", encoding="ascii")
    with pytest.raises(InputError, match="stroe"):
        limited(site, f"@{tmp_path}/site.retry")


def test_a_pipe_of_hosts_is_not_waited_for(site: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match="pipe"):
        limited(site, f"@{tmp_path}/pipe")


def test_auth_hosts_and_stores_bring_one_another_along(tmp_path: Path) -> None:
    tree: Tree = sound_site()
    folder = write_site(tmp_path, tree)
    loaded = load_site(folder)
    cases = (
        ("store", ["store", "auth"]),
        ("auth", ["auth", "store"]),
        ("relay", ["relay"]),
        ("all:!auth", ["edge", "frontend", "store", "relay"]),
    )
    for pattern, wanted in cases:
        found = with_needed(loaded, limited(folder, pattern))
        assert sorted(found) == sorted(wanted), pattern
    assert with_needed(loaded, None) == []
