"""Plain Ansible and the model agree: what the preflight play refuses names the same thing the model names, and no host is touched."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from sample_site import BAD_SITES, Bad, sound_site, write_site

ROOT = Path(__file__).resolve().parents[2]
SHARED = tuple(bad for bad in BAD_SITES if bad.key is not None)
"""The faults that both must see; tests/unit/test_site_model.py shows that the model does."""


NAMED = "marks in names"
"""A sound site whose users have an apostrophe and an ampersand in their names."""


def preflight(folder: Path, *options: str) -> tuple[int, str, bool]:
    """Runs the play as a user of plain Ansible does.

    Returns:
        Exit code; the text of the refusal (all output if there is none); whether anything tried to reach a host.
    """
    touched = folder / "touched"
    ssh = folder / "ssh"
    ssh.write_text(f"#!/bin/sh\ntouch '{touched}'\nexit 1\n", encoding="ascii")
    ssh.chmod(0o755)
    env = {**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_SSH_EXECUTABLE": str(ssh), "ANSIBLE_NOCOLOR": "1"}
    command = [
        str(Path(sys.executable).parent / "ansible-playbook"),
        "-i",
        str(folder / "hosts.yml"),
        *options,
        str(ROOT / "playbooks" / "preflight.yml"),
    ]
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=env, cwd=folder, timeout=60)
    refusal = re.search(r'"msg": "(.*)"', done.stdout)
    return done.returncode, refusal.group(1) if refusal else done.stdout + done.stderr, touched.exists()


@pytest.fixture(scope="module")
def verdicts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[int, str, bool]]:
    """What the play says to the sound site (`""`) and to each spoilt one; two at a time."""
    folders = {"": write_site(tmp_path_factory.mktemp("sound"), sound_site())}
    named = sound_site()
    person = {"name": "o'brien@lemon.example", "aliases": ["r&d@lemon.example"], "password_hash": "{SSHA}NHqZKoTHLmiSaXSyHEhpbtmBpJdzYWx0"}
    named["all"]["lemonstand_users"].append(person)
    folders[NAMED] = write_site(tmp_path_factory.mktemp("named"), named)
    for bad in SHARED:
        tree = sound_site()
        bad.spoil(tree)
        folders[bad.name] = write_site(tmp_path_factory.mktemp("bad"), tree)
    with ThreadPoolExecutor(2) as pool:
        return dict(zip(folders, pool.map(preflight, folders.values()), strict=True))


def test_names_that_people_have_pass(verdicts: dict[str, tuple[int, str, bool]]) -> None:
    code, text, touched = verdicts[NAMED]
    assert code == 0, text
    assert not touched


def test_enough_is_shared() -> None:
    assert len(SHARED) >= 20


def test_sound_site_passes(verdicts: dict[str, tuple[int, str, bool]]) -> None:
    code, text, touched = verdicts[""]
    assert code == 0, text
    assert not touched


@pytest.mark.parametrize("bad", SHARED, ids=lambda bad: bad.name)
def test_preflight_names_what_the_model_names(bad: Bad, verdicts: dict[str, tuple[int, str, bool]]) -> None:
    code, text, touched = verdicts[bad.name]
    assert code != 0, "the play accepts what the model refuses"
    assert str(bad.key) in text
    assert "Traceback" not in text
    assert not touched


def test_a_limit_does_not_get_round_it(tmp_path: Path) -> None:
    tree = sound_site()
    tree["all"]["lemonstand_tls_profile"] = "sloppy"
    code, said, touched = preflight(write_site(tmp_path, tree), "--limit", "store")
    assert code != 0
    assert "lemonstand_tls_profile 'sloppy'" in said
    assert not touched
