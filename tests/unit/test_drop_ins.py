"""A site's own text for Dovecot and for services: what may stand in it, and what is refused with its line and reason (record 0052)."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from lemonstand.policy.controls import load_controls
from lemonstand.policy.drop_ins import load_drop_ins
from lemonstand.policy.kinds import load_kinds
from lemonstand.site.shipped import filter_plugin

ROOT = Path(__file__).resolve().parents[2]
POLICY = load_drop_ins()
GOOD_DOVECOT = """\
# more room
imap_max_line_length = 128 k # for one client
remote 192.0.2.0/24 {
\tprotocol imap {
    mail_max_keyword_length = 80
  }
}

service indexer-worker {
  process_limit = 4
  vsz_limit = 1 G
}
"""


def refused(text: str, program: str = "dovecot", group: str = "stores") -> list[tuple[int, str]]:
    """Lines with reasons."""
    return [(each.line, f"{each.what}: {each.why}") for each in POLICY.refusals(group, program, text)]


def test_reasons_are_controls() -> None:
    assert {name for each in POLICY.systemd.kept for name in each.controls} <= set(load_controls().by_id())


def test_units_are_those_that_roles_of_the_kind_bring_to_their_files() -> None:
    for kind, one in load_kinds().kinds.items():
        tasks = (ROOT / "playbooks/tasks/activate" / f"{kind}.yml").read_text(encoding="utf-8")
        roles = set(re.findall(r"[a-z_]+", tasks)) & {path.name for path in (ROOT / "roles").iterdir()}
        texts = "".join((ROOT / "roles" / role / "vars/main.yml").read_text(encoding="utf-8") for role in roles)
        assert all(f"- unit: {unit}\n" in texts for unit in one.units), kind


def test_what_is_free_is_taken() -> None:
    assert refused(GOOD_DOVECOT) == []
    assert refused("; bounds\n[Service]\nCPUWeight = 50\nMemoryHigh=6G\n# more\nIOWeight=\n", "dovecot.service") == []


@pytest.mark.parametrize(
    ("text", "line", "why"),
    [
        ("ssl_min_protocol = TLSv1", 1, "LEM-8-14"),
        ("\nprotocol imap {\n  mail_plugins = x\n}", 3, "LEM-8-09"),
        ("local_name a.example {\n  ssl_server_cert_file = /tmp/x\n}", 2, "LEM-8-14"),
        ("remote 0.0.0.0/0 {\n protocol imap {\n  auth_allow_cleartext=yes\n }\n}", 3, "LEM-8-08"),
        ("protocol lmtp {\n  quota_full_tempfail = no\n}", 2, "LEM-6-06"),
        ("service imap-login {\n  client_limit = 100\n}", 2, "LEM-8-12"),
        ("service imap {\n  executable = imap /bin/sh\n}", 2, "LEM-8-12"),
        ("service imap {\n  process_limit = 1\n}", 2, "dovecot.conf.j2 sets it for the service imap"),
        ("service imap {\n  unix_listener imap-x {\n    mode = 0666\n  }\n}", 2, "of Dovecot's blocks"),
        ("protocol imap {\n  service imap {\n  }\n}", 2, "of Dovecot's blocks"),
        ("passdb static {\n}", 1, "of Dovecot's blocks"),
        ("service_client_limit = 7", 1, "LEM-8-09"),
        ("!include /etc/dovecot/more.conf", 1, "in no form that is judged"),
        ("@group = x", 1, "in no form that is judged"),
        ("imap_max_line_length = </etc/shadow", 1, "in no form that is judged"),
        ("imap_max_line_length =   </etc/shadow", 1, "in no form that is judged"),
        ("imap_max_line_length = $ENV:X", 1, "in no form that is judged"),
        ("imap/auth_mechanisms = plain", 1, "in no form that is judged"),
        ("protocol imap { auth_mechanisms = plain }", 1, "in no form that is judged"),
        ('protocol "imap" {\n}', 1, "in no form that is judged"),
        ("# a comment \\\nauth_mechanisms = plain", 1, "goes on in the next line"),
        ("imap_max_line_length = 5k\rauth_mechanisms = plain", 1, "control character"),
        ("imap_max_line_length = 5k\u2028auth_mechanisms = plain", 1, "control character"),
        ("}\nauth_mechanisms = plain", 1, "in no form that is judged"),
        ("protocol imap {", 1, "1 blocks are not closed"),
    ],
)
def test_dovecots_text_is_refused_with_its_line(text: str, line: int, why: str) -> None:
    found = refused(text)
    assert found and found[0][0] == line and why in found[0][1], found


@pytest.mark.parametrize(
    ("text", "line", "why"),
    [
        ("[Service]\nExecStartPre=/bin/sh", 2, "LEM-8-09"),
        ("[Service]\nUser=root", 2, "LEM-8-09"),
        ("[Service]\nCPUWeight=9\nCapabilityBoundingSet=~", 3, "LEM-8-03"),
        ("[Service]\nMemoryDenyWriteExecute=no", 2, "LEM-8-12"),
        ("[Service]\nReadWritePaths=/", 2, "LEM-8-12"),
        ("[Service]\nIPAddressAllow=any", 2, "LEM-8-18"),
        ("[Service]\nRestart=no", 2, "LEM-8-24"),
        ("[Service]\nEnvironment=LD_PRELOAD=/tmp/x", 2, "LEM-8-09"),
        ("[Service]\nStandardOutput=null", 2, "INT-07"),
        ("[Service]\nLimitNOFILE=9", 2, "dovecot.service.d/lemonstand.conf.j2 sets it"),
        ("[Service]\nNewOfNextYear=yes", 2, "of a unit a site may set"),
        ("[Unit]\nConflicts=ssh.service", 2, "LEM-8-24"),
        ("[Unit]\nCPUWeight=9", 2, "not in [Unit]"),
        ("CPUWeight=9", 1, "not above all sections"),
        ("[Install]\nWantedBy=default.target", 2, "LEM-8-09"),
        ("[Service]\nCPUWeight=\\\nUser=root", 2, "goes on in the next line"),
        ("[Service]\nCPUWeight", 2, "in no form that is judged"),
    ],
)
def test_a_units_text_is_refused_with_its_line(text: str, line: int, why: str) -> None:
    found = refused(text, "dovecot.service")
    assert found and found[0][0] == line and why in found[0][1], found


def test_whatever_a_unit_of_ours_sets_is_refused() -> None:
    """Each setting of each unit that a site may add to, and all that hardens it."""
    for kind in load_kinds().kinds.values():
        for unit in kind.units:
            for path in (ROOT / "roles").glob("[!l]*/templates/etc/systemd/system/**/*.j2"):
                if path.name == f"{unit}.j2" or path.parent.name == f"{unit}.d":
                    names = re.findall(r"^([A-Z]\w+)=", path.read_text(encoding="utf-8"), re.MULTILINE)
                    assert names and all(refused(f"[Service]\n{name}=1", unit) for name in names)


def _state() -> Any:
    return filter_plugin("operation")._load(ROOT / "playbooks/files/host_state.py")


def test_dovecot_may_see_nothing_in_a_text_that_no_line_says(monkeypatch: pytest.MonkeyPatch) -> None:
    state, out = _state(), ["dovecot_config_version = 2.4.0\nprotocol imap {\n  mail_max_keyword_length = 80\n}\n"]
    monkeypatch.setattr(state.shutil, "which", lambda name: f"/usr/bin/{name}" if name else None)
    monkeypatch.setattr(state.subprocess, "run", lambda words, **_: subprocess.CompletedProcess(words, 0, out[0], ""))
    own = {"program": "dovecot", "settings": {}, "text": "protocol imap {\n  mail_max_keyword_length = 80\n}\n"}
    assert state.own_settings(own, {"dovecot-core": "2.4"}) == []
    out[0] += "  ssl = no\n"
    (fault,) = state.judge_own({"own": state.own_settings(own, {"dovecot-core": "2.4"})}, {"own": own})
    assert "ssl: the program reads it in text that does not say it" in fault and "lemonstand_drop_ins" in fault


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="no systemd-analyze")
def test_systemd_is_asked(tmp_path: Path) -> None:
    state = _state()
    assert state.unit_warnings("[Service]\nCPUWeight=50\nMemoryHigh=6G\n") == []
    (fault,) = state.judge_own({"drop_ins": {"x.service": state.unit_warnings("[Service]\nCPUWeight=many\n")}}, {})
    assert "x.service: line 2: " in fault and "correct lemonstand_drop_ins" in fault
    # The role asks the same as it writes.
    check = yaml.safe_load((ROOT / "roles/base/vars/main.yml").read_text(encoding="utf-8"))["__base_drop_in_check"]
    hold = filter_plugin("operation")._load(ROOT / "plugins/plugin_utils/on_host/hold_files.py")
    entry = {"path": str(tmp_path / "lemonstand-site.conf"), "mode": "0644", "validate": check}
    hold.validate({**entry, "text": "[Service]\nCPUWeight=50\n"})
    with pytest.raises(OSError, match="many"):
        hold.validate({**entry, "text": "[Service]\nCPUWeight=many\n"})
