"""A site's own settings: what is the site's to choose, and what is refused with its reason (record 0038)."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from lemonstand.policy.controls import load_controls
from lemonstand.policy.own_settings import load_own_settings
from lemonstand.site.shipped import filter_plugin

ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = load_own_settings()


def test_reasons_are_controls_and_files_are_there() -> None:
    known = set(load_controls().by_id())
    for program in PROGRAMS.values():
        assert all((ROOT / file).is_file() for file in program.files.values())
        assert {name for each in program.kept for name in each.controls} <= known


@pytest.mark.parametrize(
    ("program", "group", "name", "why"),
    [
        ("postfix", "relays", "smtpd_relay_restrictions", "LEM-8-24"),
        ("postfix", "relays", "smtp_tls_security_level", "LEM-8-14"),
        ("postfix", "relays", "always_bcc", "LEM-8-10"),
        ("postfix", "relays", "smtpd_milters", "lemonstand_relay_milters"),
        ("postfix", "relays", "biff", "main.cf.j2 sets it"),
        ("dovecot", "frontends", "auth_debug_passwords", "LEM-8-08"),
        ("dovecot", "frontends", "ssl_cipher_list", "LEM-8-19"),
        ("dovecot", "stores", "mail_plugins", "LEM-8-09"),
        ("dovecot", "stores", "imap_hibernate_timeout", "lemonstand_timers"),
    ],
)
def test_what_controls_depend_on_is_refused(program: str, group: str, name: str, why: str) -> None:
    assert why in PROGRAMS[program].refusal(group, name)


@pytest.mark.parametrize(
    ("program", "group", "name"),
    [
        ("postfix", "relays", "qmgr_message_active_limit"),
        ("postfix", "relays", "smtp_destination_concurrency_limit"),
        ("dovecot", "stores", "mail_max_keyword_length"),
        ("dovecot", "stores", "imap_max_line_length"),
    ],
)
def test_others_are_the_sites_to_choose(program: str, group: str, name: str) -> None:
    assert PROGRAMS[program].refusal(group, name) == ""


def test_every_setting_of_a_role_is_refused() -> None:
    for program in PROGRAMS.values():
        for group, file in program.files.items():
            lines = (ROOT / file).read_text(encoding="utf-8").splitlines()
            names = {line.partition(" =")[0] for line in lines if " =" in line and line[0].isalpha()}
            assert names and all(program.refusal(group, name) for name in names if name.isidentifier())


@pytest.mark.skipif(not shutil.which("true"), reason="no true")
def test_the_program_that_reads_them_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = filter_plugin("operation")._load(ROOT / "playbooks/files/host_state.py")
    asked: list[str] = []

    def run(words: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        folder = Path(words[words.index("-c") + 1])
        asked.append((folder if folder.is_file() else folder / "main.cf").read_text(encoding="utf-8"))
        return subprocess.CompletedProcess(words, 0, "", f"{words[0]}: warning: {folder}/main.cf: unused parameter: no_such = 1\n")

    monkeypatch.setattr(state.shutil, "which", lambda name: f"/usr/sbin/{name}" if name else None)
    monkeypatch.setattr(state.subprocess, "run", run)
    own = {"program": "postfix", "settings": {"no_such": 1, "yes_or_no": True}}
    facts = {"own": state.own_settings(own, {})}
    assert asked == ["no_such = 1\nyes_or_no = yes\n"]
    (fault,) = state.judge_own(facts, {"own": own})
    assert "unused parameter: no_such" in fault and "lemonstand_postfix_extra" in fault and str(tmp_path.parent) not in fault
    assert state.own_settings({"program": "dovecot", "settings": {"x": "y"}}, {"dovecot-core": "2.4"}) == []
    assert asked[1].startswith("dovecot_config_version = 2.4.0\n")
    assert state.own_settings({}, {}) == []
