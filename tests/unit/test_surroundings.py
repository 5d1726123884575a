"""What a shell has set changes no run: Ansible, Python and ssh get an allow list of variables and one locale, whoever starts them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from lemonstand import surroundings
from lemonstand.deploy import run_playbook
from lemonstand.remote.connections import read_connections
from sample_site import sound_site, write_site

HABITS = {
    "stdout callback": {"ANSIBLE_STDOUT_CALLBACK": "yaml"},
    "callbacks that are not there": {"ANSIBLE_CALLBACKS_ENABLED": "profile_tasks,nonsense", "ANSIBLE_CALLBACK_PLUGINS": "/nowhere"},
    "debug": {"ANSIBLE_DEBUG": "1"},
    "verbosity": {"ANSIBLE_VERBOSITY": "4"},
    "locale of a laptop": {"LANG": "de_DE.UTF-8"},
    "all of a locale": {"LC_ALL": "xx_YY.UTF-8", "LANGUAGE": "xx"},
    "a locale of octets": {"LC_ALL": "C", "LC_CTYPE": "POSIX"},
    "strategy": {"ANSIBLE_STRATEGY": "debug", "ANSIBLE_FORKS": "nonsense"},
    "another inventory": {"ANSIBLE_INVENTORY": "/nowhere", "ANSIBLE_INVENTORY_ENABLED": "auto"},
    "check mode": {"ANSIBLE_CHECK_MODE_MARKERS": "1", "ANSIBLE_NOCOLOR": "", "ANSIBLE_FORCE_COLOR": "1"},
    "duplicate keys": {"ANSIBLE_DUPLICATE_YAML_DICT_KEY": "ignore", "ANSIBLE_JINJA2_NATIVE": "1"},
    "another Python": {"PYTHONPATH": "/nowhere", "PYTHONSTARTUP": "/nowhere", "PYTHONIOENCODING": "ascii", "PYTHONWARNINGS": "error"},
    "a Python that says all": {"PYTHONVERBOSE": "1"},
    "a log elsewhere": {"ANSIBLE_LOG_PATH": "/dev/full"},
    "pytest": {"PYTEST_ADDOPTS": "--nonsense", "PYTEST_PLUGINS": "nonsense"},
    "runner": {"AWX_LIB_DIRECTORY": "/nowhere", "ORIGINAL_STDOUT_CALLBACK": "nonsense", "RUNNER_OMIT_EVENTS": "True"},
    "no place for temporary files": {"TMPDIR": "/nowhere"},
    "ssh": {"SSH_ASKPASS": "/bin/false", "SSH_ASKPASS_REQUIRE": "force", "SSH_AUTH_SOCK": "/nowhere", "SSH_CONNECTION": "nonsense"},
}
"""What a shell, a laptop or a CI job has set, by what it is."""
NAME = st.from_regex(r"\A(ANSIBLE_[A-Z_]{1,30}|PYTHON[A-Z]{1,12}|LC_[A-Z]{1,12}|PYTEST_[A-Z]{1,10}|LD_[A-Z_]{1,12})\Z")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sound site."""
    return write_site(tmp_path_factory.mktemp("site"), sound_site())


@pytest.fixture(scope="module")
def playbook(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An inventory of this machine, and a playbook that says what it was started with."""
    folder = tmp_path_factory.mktemp("project")
    local = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
    (folder / "hosts.yml").write_text(yaml.safe_dump({"all": {"hosts": {"one": local}}}), encoding="ascii")
    say = {"name": "Say", "ansible.builtin.debug": {"msg": "{{ lookup('ansible.builtin.pipe', 'env') }} and ü"}}
    (folder / "say.yml").write_text(yaml.safe_dump([{"hosts": "one", "gather_facts": False, "tasks": [say]}]), encoding="ascii")
    return folder


def _cli(folder: Path, habits: dict[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    """The command as a shell starts it."""
    plain = {name: value for name, value in os.environ.items() if name in {"PATH", "LEMONSTAND_STATE", "LEMONSTAND_CACHE"}}
    return subprocess.run(
        [str(Path(sys.executable).parent / "lemonstand"), *words],
        check=False, capture_output=True, text=True, errors="replace", timeout=120, cwd=folder,
        env={**plain, "HOME": str(folder), **habits},
    )  # fmt: skip


ONE_BY_ONE = ["stdout callback", "debug", "locale of a laptop", "a log elsewhere", "another Python"]
"""Habits that get a process for themselves; all others are tried together."""
TOGETHER = {name: value for habit, values in HABITS.items() if habit not in ONE_BY_ONE for name, value in values.items()}


@pytest.mark.parametrize("habits", [*(HABITS[name] for name in ONE_BY_ONE), TOGETHER], ids=[*ONE_BY_ONE, "all others"])
def test_a_check_is_as_without_them(site: Path, habits: dict[str, str]) -> None:
    (site / "ansible.cfg").write_text("[defaults]\nstdout_callback = nonsense\ninventory = /nowhere\n", encoding="ascii")
    (site / ".ansible.cfg").write_text("[defaults]\nverbosity = 4\ndebug = true\n", encoding="ascii")
    done = _cli(site, habits, "check", "--site", str(site))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "the model holds" in done.stdout
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("habits", [HABITS["stdout callback"], HABITS["locale of a laptop"], TOGETHER], ids=lambda each: next(iter(each)))
def test_a_run_is_as_without_them(playbook: Path, habits: dict[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name, value in habits.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("SOME_TOKEN", "swordfish")
    result = run_playbook(playbook / "hosts.yml", [playbook / "say.yml"], runs=tmp_path / "runs")
    log = result.log.read_text(encoding="utf-8")
    assert result.exit_code == 0, log
    assert result.record.hosts["one"].ok == 1
    assert "LC_ALL=C.UTF-8" in log
    assert "ü" in log
    assert "swordfish" not in log


def test_connections_are_read_as_without_them(site: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name, value in {**TOGETHER, "ANSIBLE_DEBUG": "1", "ANSIBLE_VERBOSITY": "5"}.items():
        monkeypatch.setenv(name, value)
    assert read_connections(site, tmp_path)["store"].target == "ssh://198.51.100.12"


@settings(max_examples=200)
@given(st.dictionaries(NAME, st.text(st.characters(min_codepoint=1, blacklist_categories=("Cs",)), max_size=20), max_size=8))
def test_no_name_of_theirs_is_handed_on(names: dict[str, str]) -> None:
    before = dict(os.environ)
    try:
        os.environ.update(names)
        found = surroundings.environment()
    finally:
        os.environ.clear()
        os.environ.update(before)
    allowed = {*surroundings.PASSWORD_FILES, "LC_ALL", "PYTHONPATH", "ANSIBLE_HOME"}
    assert not set(names) & set(found) - allowed
    assert found["LC_ALL"] == found["LANG"] == "C.UTF-8"


def test_what_is_meant_is_handed_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    folder = write_site(tmp_path / "site", sound_site())
    (folder / "group_vars" / "all" / "more.yml").write_text("""x: "{{ lookup('ansible.builtin.env', 'SUDO_WORD') }}"\n""", encoding="ascii")
    monkeypatch.chdir(tmp_path)
    for name in ("SUDO_WORD", "OTHER_WORD", "THIRD_WORD"):
        monkeypatch.setenv(name, "x")
    monkeypatch.setenv("LEMONSTAND_PASS_ENVIRONMENT", "THIRD_WORD, LD_PRELOAD")
    monkeypatch.setenv("LD_PRELOAD", "")
    monkeypatch.setenv("ANSIBLE_VAULT_PASSWORD_FILE", "word.txt")
    monkeypatch.setenv("ANSIBLE_VAULT_IDENTITY_LIST", "one@a.txt, two@/b.txt,c.txt")
    found = surroundings.environment(inventory=folder)
    assert {"SUDO_WORD", "THIRD_WORD"} <= set(found)
    assert not {"OTHER_WORD", "LD_PRELOAD"} & set(found)
    assert found["ANSIBLE_VAULT_PASSWORD_FILE"] == str(tmp_path / "word.txt")
    assert found["ANSIBLE_VAULT_IDENTITY_LIST"] == f"one@{tmp_path}/a.txt,two@/b.txt,{tmp_path}/c.txt"


def test_a_vault_is_opened_by_the_file_that_was_named(tmp_path: Path) -> None:
    folder = write_site(tmp_path / "site", sound_site())
    (folder / "word.txt").write_text("swordfish\n", encoding="ascii")
    (folder / "group_vars" / "all" / "vault.yml").write_text("lemonstand_devices_per_user: 4\n", encoding="ascii")
    site_file = folder / "group_vars" / "all" / "site.yml"
    site_file.write_text(site_file.read_text(encoding="utf-8").replace("lemonstand_devices_per_user: 4\n", ""), encoding="utf-8")
    vault = [str(Path(sys.executable).parent / "ansible-vault"), "encrypt", "--vault-password-file", str(folder / "word.txt")]
    subprocess.run(
        [*vault, str(folder / "group_vars" / "all" / "vault.yml")], check=True, capture_output=True, env=surroundings.environment()
    )
    for habits, words, code in (
        ({"ANSIBLE_VAULT_PASSWORD_FILE": "word.txt"}, (), 0),
        ({}, ("--vault-password-file", "word.txt"), 0),
        ({"ANSIBLE_VAULT_ENCRYPT_IDENTITY": "nonsense"}, ("--vault-id", "mine@word.txt"), 0),
        ({}, (), 2),
        ({}, ("--ask-vault-pass",), 2),
    ):
        done = _cli(folder, habits, "check", "--site", str(folder), *words)
        assert done.returncode == code, (habits, words, done.stdout, done.stderr)
        assert "Traceback" not in done.stderr


def test_variables_that_say_how_hosts_are_reached_are_told(site: Path) -> None:
    done = _cli(site, {"ANSIBLE_REMOTE_USER": "ops"}, "check", "--site", str(site))
    assert done.returncode == 0
    assert "not used: ANSIBLE_REMOTE_USER" in done.stderr
