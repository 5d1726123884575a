"""The preflight play as a user of plain Ansible runs it: with the package, with another one, and without; and no host is touched.

What it accepts and refuses is compared with the model's words in test_one_judge.py.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from lemonstand.site.shipped import filter_plugin
from one_judge import by_the_model
from sample_site import BAD_SITES, Tree, sound_site, write_site

ROOT = Path(__file__).resolve().parents[2]
Verdict = tuple[int, str, bool]
ONLY_TYPES = "only the names and types of the site's variables were checked"


def preflight(folder: Path, *options: str, **env: str) -> Verdict:
    """Runs the play.

    Returns:
        Exit code; what it printed, a refusal with its lines as they are; whether anything tried to reach a host.
    """
    touched = folder / "touched"
    ssh = folder / "ssh"
    ssh.write_text(f"#!/bin/sh\ntouch '{touched}'\nexit 1\n", encoding="ascii")
    ssh.chmod(0o755)
    settings = {"ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_SSH_EXECUTABLE": str(ssh), "ANSIBLE_NOCOLOR": "1", **env}
    settings.setdefault("COLUMNS", "10000")  # warnings are not broken into lines
    command = [
        str(Path(sys.executable).parent / "ansible-playbook"), "-i", str(folder / "hosts.yml"), *options,
        str(ROOT / "playbooks" / "preflight.yml"),
    ]  # fmt: skip
    done = subprocess.run(command, check=False, capture_output=True, text=True, env={**os.environ, **settings}, cwd=folder, timeout=120)
    said = (done.stdout + done.stderr).replace("\\n", "\n").replace('\\"', '"')
    return done.returncode, re.sub(r"[ \n]*\n +", " ", said), touched.exists()


def _named(tree: Tree) -> None:
    person = {"name": "o'brien@lemon.example", "aliases": ["r&d@lemon.example"], "password_hash": "{SSHA}NHqZKoTHLmiSaXSyHEhpbtmBpJdzYWx0"}
    tree["all"]["lemonstand_users"].append(person)


def _breach(tree: Tree) -> None:
    tree["files"]["host_vars/store.yml"] = {"nftables_timeouts": {"established": 600}}


def _sloppy(tree: Tree) -> None:
    tree["all"]["lemonstand_tls_profile"] = "sloppy"


def _eaten(tree: Tree) -> None:
    tree["all"]["lemonstand_user_passwords"]["bob@lemon.example"] = "50%{% off} 2026 ok"


SITES: dict[str, Callable[[Tree], object]] = {
    "sound": lambda tree: None,
    "marks in names": _named,
    "ten minutes on one host": _breach,
    "eaten password": _eaten,
    "unknown key": next(bad.spoil for bad in BAD_SITES if bad.name == "unknown key"),
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    found = {}
    for name, spoil in SITES.items():
        tree = sound_site()
        spoil(tree)
        found[name] = write_site(tmp_path_factory.mktemp("site"), tree)
    return found


@pytest.fixture(scope="module")
def verdicts(folders: dict[str, Path]) -> dict[str, Verdict]:
    """What the play says to each site; two at a time."""
    with ThreadPoolExecutor(2) as pool:
        return dict(zip(folders, pool.map(preflight, folders.values()), strict=True))


@pytest.mark.parametrize("name", ["sound", "marks in names"])
def test_sound_sites_pass(name: str, verdicts: dict[str, Verdict]) -> None:
    code, text, touched = verdicts[name]
    assert code == 0, text
    assert ONLY_TYPES not in text
    assert not touched


@pytest.mark.parametrize("name", ["ten minutes on one host", "eaten password", "unknown key"])
def test_the_play_says_what_the_model_says(name: str, verdicts: dict[str, Verdict], folders: dict[str, Path]) -> None:
    code, text, touched = verdicts[name]
    expected = by_the_model(folders[name].joinpath("hosts.yml"))
    assert code != 0, "the play accepts what the model refuses"
    assert expected
    for fault in expected:
        assert fault in text
    assert "Traceback" not in text
    assert not touched


def test_a_limit_does_not_get_round_it(tmp_path: Path) -> None:
    tree = sound_site()
    _sloppy(tree)
    code, said, touched = preflight(write_site(tmp_path, tree), "--limit", "store")
    assert code != 0
    assert "lemonstand_tls_profile" in said and "sloppy" in said
    assert not touched


def test_what_was_judged_a_moment_ago_is_not_judged_again(tmp_path: Path) -> None:
    """A site that the judge refuses passes by its own digest alone: so a sound one is judged once."""
    tree = sound_site()
    _sloppy(tree)
    folder = write_site(tmp_path, tree)
    judged = filter_plugin("judged").fingerprint([folder / "hosts.yml"])
    assert preflight(folder, LEMONSTAND_JUDGED=judged)[0] == 0
    (folder / "group_vars" / "all" / "more.yml").write_text("---\n", encoding="utf-8")
    code, said, touched = preflight(folder, LEMONSTAND_JUDGED=judged)
    assert code != 0, "files that nobody judged"
    assert "lemonstand_tls_profile" in said
    assert not touched


def test_the_command_line_is_judged_too(tmp_path: Path) -> None:
    folder = write_site(tmp_path, sound_site())
    code, said, _ = preflight(
        folder, "-e", "lemonstand_tls_profile=sloppy", "-e", "awx_job_id=7", "-e", "certificates_new_authorities=true"
    )
    assert code != 0
    assert "lemonstand_tls_profile" in said
    assert "foreign variable 'awx_job_id'" in said, "as `check` says of `-e`"
    assert "certificates_new_authorities" not in said


@pytest.fixture
def without_package(tmp_path: Path) -> dict[str, str]:
    """The environment of a controller that has the collection alone."""
    (tmp_path / "none" / "lemonstand").mkdir(parents=True)
    (tmp_path / "none" / "lemonstand" / "__init__.py").write_text('raise ImportError("not installed")\n', encoding="ascii")
    return {"PYTHONPATH": str(tmp_path / "none")}


def test_without_the_package_it_says_what_it_has_not_checked(without_package: dict[str, str], folders: dict[str, Path]) -> None:
    code, said, touched = preflight(folders["sound"], **without_package)
    assert code == 0, said
    assert said.count(ONLY_TYPES) == 1
    assert "lemonstand check" in said
    assert not touched


def test_without_the_package_names_types_and_secrets_are_still_checked(without_package: dict[str, str], tmp_path: Path) -> None:
    tree = sound_site()
    tree["all"]["lemonstand_user"] = []
    tree["all"]["lemonstand_devices_per_user"] = "many"
    tree["all"]["lemonstand_zones"]["dmz"]["ipv5"] = "x"
    del tree["all"]["lemonstand_mx_name"]
    code, said, touched = preflight(write_site(tmp_path / "site", tree), **without_package)
    assert code != 0
    for fault in (
        "unknown variable 'lemonstand_user'; did you mean 'lemonstand_users'?",
        "lemonstand_devices_per_user: this is not a number",
        "lemonstand_zones.dmz.ipv5: no such key",
        "lemonstand_mx_name is not set on host edge",
    ):
        assert fault in said
    assert not touched


def test_without_the_package_secrets_are_left_as_they_are(without_package: dict[str, str], folders: dict[str, Path]) -> None:
    code, said, _ = preflight(folders["eaten password"], **without_package)
    assert code != 0
    assert "lemonstand_user_passwords.bob@lemon.example has braces" in said
    assert "off}" not in said
