"""Alarms: what a host says of itself is told, and a host that could not say it is named, however it failed."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner

from lemonstand import admin
from lemonstand.admin import alarms, health
from lemonstand.admin.access import Hosts
from lemonstand.cli import main
from lemonstand.errors import InputError, LemonstandError
from lemonstand.remote.connections import Connection
from lemonstand.site import load_site
from sample_site import sound_site, write_site

ANSWER = {"alarms": [{"at": 1760000000.0, "kind": "guessing", "details": "limit=user user=alice@lemon.test"}], "faults": {}}


def _marked(answer: dict[str, Any]) -> str:
    return health.MARK + json.dumps(answer) + "\n"


def _answered(tmp_path: Path, answer: str | LemonstandError, host: str = "auth") -> admin.Alarms:
    """All hosts say that all is well, one says something else."""
    site = load_site(write_site(tmp_path, sound_site()))
    assert host in site.hosts

    class Fake:
        def run_on(self, names: list[str], command: list[str], given: str = "") -> dict[str, str | LemonstandError]:
            assert "MARK" in given and command[:2] == ["/usr/bin/python3", "-"]
            return {name: answer if name == host else _marked({"alarms": [], "faults": {}}) for name in names}

    return admin.read_alarms(site, Fake(), "24h")  # type: ignore[arg-type]


def test_an_alarm_says_when_where_and_what(tmp_path: Path) -> None:
    seen = _answered(tmp_path, _marked(ANSWER))
    assert not seen.unasked
    (alarm,) = seen.found
    assert (alarm.host, alarm.kind, alarm.details, alarm.at.year) == ("auth", "guessing", "limit=user user=alice@lemon.test", 2025)


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "sudo: a password is required\n",
        "Last login: never\n{}\n",
        json.dumps(ANSWER),
        health.MARK,
        health.MARK + '{"alarms": [',
        health.MARK + "[]",
        health.MARK + '{"alarms": []}',
        health.MARK + '{"alarms": [{"kind": "disk"}], "faults": {}}',
        health.MARK + '{"alarms": null, "faults": {}}',
        LemonstandError("python3 failed: sudo: a password is required", "auth", "x"),
        LemonstandError("auth gave no answer within 60 s", "auth", "x"),
    ],
)
def test_whatever_is_no_answer_is_no_silence(tmp_path: Path, answer: str | LemonstandError) -> None:
    seen = _answered(tmp_path, answer)
    assert [host for host, _ in seen.unasked] == ["auth"]
    assert all(why for _, why in seen.unasked)


def test_a_part_that_could_not_be_found_out_is_named_beside_what_was(tmp_path: Path) -> None:
    seen = _answered(tmp_path, _marked({**ANSWER, "faults": {"queue": "postqueue: fatal"}}))
    assert [alarm.kind for alarm in seen.found] == ["guessing"]
    assert seen.unasked == (("auth", "queue: postqueue: fatal"),)


def test_a_banner_before_the_answer_does_no_harm(tmp_path: Path) -> None:
    assert _answered(tmp_path, "Authorised use only\n" + _marked(ANSWER)).found


@pytest.mark.parametrize("since", ["", "24", "1w", "-3h", "1.5h", "99999h", "24h; true"])
def test_a_span_is_minutes_hours_or_days(tmp_path: Path, since: str) -> None:
    site = load_site(write_site(tmp_path, sound_site()))
    with pytest.raises(InputError):
        admin.read_alarms(site, None, since)  # type: ignore[arg-type]


# --- the whole command, with programs in the place of ssh --------------------------------------------------------------------------

SSH = {
    "sudo asks for a password": "echo 'sudo: a password is required' >&2; exit 1",
    "sudo does not know the user": "echo 'ops is not in the sudoers file.' >&2; exit 1",
    "no ssh": "echo 'ssh: connect to host auth port 22: Connection refused' >&2; exit 255",
    "no Python": "echo 'sh: 1: /usr/bin/python3: not found' >&2; exit 127",
    "killed": "kill -9 $$",
    "silent and content": "exit 0",
    "nothing found, says another program": "exit 1",
    "a menu": "echo 'Please choose: (1) shell (2) mail'; exit 0",
}


@pytest.mark.parametrize("way", SSH)
def test_no_alarm_is_only_said_by_who_was_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    """An auth host whose alarms can't be read: `sudo -n` exits 1 there, as does a search that finds nothing."""
    inventory = write_site(tmp_path / "site", sound_site())
    ssh = tmp_path / "bin" / "ssh"
    ssh.parent.mkdir()
    well = _marked({"alarms": [], "faults": {}}).strip()
    ssh.write_text(f'#!/bin/sh\ncat >/dev/null\ncase "$*" in *" auth "*) {SSH[way]};; esac\necho \'{well}\'\n')
    ssh.chmod(ssh.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{ssh.parent}:{os.environ['PATH']}")
    names = [each.name for each in load_site(inventory).hosts.values()]
    monkeypatch.setattr(
        "lemonstand.admin.access.read_connections", lambda *_: {name: Connection(name, "-T", sudo=name == "auth") for name in names}
    )
    done = CliRunner().invoke(main, ["alarms", "-i", str(inventory)])
    assert done.exit_code == 2, done.output
    assert "can't ask auth: " in done.output
    assert "no alarm" not in done.output


def test_all_asked_and_nothing_found_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inventory = write_site(tmp_path, sound_site())
    monkeypatch.setattr("lemonstand.admin.access.read_connections", lambda *_: {})
    monkeypatch.setattr(Hosts, "run_on", lambda _self, names, *_: dict.fromkeys(names, _marked({"alarms": [], "faults": {}})))
    done = CliRunner().invoke(main, ["alarms", "-i", str(inventory)])
    assert (done.exit_code, done.output) == (0, "no alarm in the last 24h\n")
    monkeypatch.setattr(Hosts, "run_on", lambda _self, names, *_: dict.fromkeys(names, _marked(ANSWER)))
    done = CliRunner().invoke(main, ["alarms", "-i", str(inventory)])
    assert done.exit_code == 1
    assert "guessing" in done.output


# --- the program on the host --------------------------------------------------------------------------------------------------------


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A host whose programs say what a test wants: `host.says("chronyc", "…")`."""
    programs = tmp_path / "bin"
    programs.mkdir()

    def says(name: str, out: str, code: int = 0, err: str = "") -> None:
        (programs / f"{name}.out").write_text(out)
        path = programs / name
        path.write_text(f"#!/bin/sh\ncat {programs}/{name}.out\n{f'echo {err!r} >&2' if err else ''}\nexit {code}\n")
        path.chmod(0o755)

    monkeypatch.setenv("PATH", f"{programs}:/usr/bin:/bin")
    memory = tmp_path / "converge"
    memory.mkdir()
    (memory / "dovecot.service.json").write_text("{}")
    (memory / "chrony.service.json").write_text("{}")
    monkeypatch.setattr(health, "CONVERGED", memory)
    pki = tmp_path / "pki"
    pki.mkdir()
    monkeypatch.setattr(health, "CERTIFICATES", pki)
    return SimpleNamespace(says=says, pki=pki, memory=memory)


def _kinds(found: Any) -> list[tuple[str, str]]:
    return [(each["kind"], each["details"]) for each in found]


def test_limits_are_read_from_the_journal(host: Any) -> None:
    line = {"MESSAGE": "alarm=sending user=alice@lemon.test", "__REALTIME_TIMESTAMP": "1760000000000000"}
    host.says("journalctl", json.dumps(line) + "\n" + json.dumps({**line, "MESSAGE": "something else"}) + "\n")
    assert _kinds(health.limits(60)) == [("sending", "user=alice@lemon.test")]


@pytest.mark.parametrize(
    ("code", "err"),
    [
        (1, "Failed to open journal"),
        (0, "No journal files were found."),
        (0, "No journal files were opened due to insufficient permissions"),
    ],
)
def test_a_journal_that_can_not_be_read_is_a_fault(host: Any, code: int, err: str) -> None:
    host.says("journalctl", "", code, err)
    for part in (health.limits, health.restarts):
        with pytest.raises(health.Fault):
            list(part(60))


@pytest.mark.parametrize(
    ("state", "kinds"),
    [
        ("ActiveState=active\nSubState=running\n", []),
        ("ActiveState=reloading\nSubState=reload\n", []),
        ("ActiveState=activating\nSubState=auto-restart\nNRestarts=7\nResult=signal\n", ["restarting"]),
        ("ActiveState=activating\nSubState=auto-restart-queued\nNRestarts=7\nResult=signal\n", ["restarting"]),
        ("ActiveState=inactive\nSubState=dead\n", ["not-running"]),
        ("ActiveState=deactivating\nSubState=stop-sigterm\n", ["not-running"]),
        ("", ["not-running"]),
    ],
)
def test_services_that_do_not_run_are_named(host: Any, state: str, kinds: list[str]) -> None:
    (host.memory / "chrony.service.json").unlink()
    host.says("systemctl", state)
    # `list-units` gets the same text here: a unit of that name has failed, which is told as well.
    found = [each for each in health.units(60) if each["kind"] != "failed"]
    assert [each["kind"] for each in found] == kinds
    assert all("unit=dovecot.service" in each["details"] for each in found)


def test_a_service_that_a_signal_stopped_is_named(host: Any) -> None:
    (host.memory / "chrony.service.json").unlink()
    with subprocess.Popen(["sleep", "60"]) as process:
        try:
            host.says("systemctl", f"ActiveState=active\nSubState=running\nMainPID={process.pid}\n")
            assert "stopped" not in [each["kind"] for each in health.units(60)]
            process.send_signal(signal.SIGSTOP)
            os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)
            (found,) = [each for each in health.units(60) if each["kind"] == "stopped"]
            assert found["details"].startswith("unit=dovecot.service ")
        finally:
            process.kill()


def test_failed_units_are_named_once(host: Any) -> None:
    host.says("systemctl", "dovecot.service loaded failed failed Dovecot\n")
    assert _kinds(health.units(60))[0] == ("failed", "unit=dovecot.service result=?")
    assert len([each for each in health.units(60) if "dovecot" in each["details"]]) == 1


def test_a_host_that_was_never_applied_does_not_look_well(host: Any) -> None:
    for path in host.memory.iterdir():
        path.unlink()
    host.says("systemctl", "")
    with pytest.raises(health.Fault, match="apply"):
        list(health.units(60))


def test_restarts_are_counted_by_unit(host: Any) -> None:
    lines = [
        {"UNIT": unit, "__REALTIME_TIMESTAMP": f"{1760000000 + n}000000"} for n, unit in enumerate(["a.service", "b.service", "a.service"])
    ]
    host.says("journalctl", "".join(json.dumps(each) + "\n" for each in lines))
    found = list(health.restarts(60))
    assert _kinds(found) == [("restarted", "unit=a.service times=2"), ("restarted", "unit=b.service times=1")]
    assert found[0]["at"] == 1760000002


def _statvfs(**values: int) -> Any:
    usual = {"f_blocks": 1000, "f_bfree": 500, "f_bavail": 450, "f_files": 1000, "f_favail": 900, "f_frsize": 4096, "f_flag": 0}
    return SimpleNamespace(**{**usual, **values})


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({}, ""),
        ({"f_bfree": 100, "f_bavail": 50}, "space=95%"),
        ({"f_bfree": 0, "f_bavail": 0}, "space=100%"),
        ({"f_favail": 0}, "inodes=100%"),
        ({"f_files": 0, "f_favail": 0}, ""),
        ({"f_blocks": 0, "f_bfree": 0, "f_bavail": 0}, ""),
        ({"f_bfree": 300, "f_bavail": 250}, ""),
    ],
)
def test_full_disks_are_told_by_space_and_by_inodes(monkeypatch: pytest.MonkeyPatch, values: dict[str, int], told: str) -> None:
    monkeypatch.setattr(health, "mounts", lambda: [("/", "ext4"), ("/bound", "ext4")])
    monkeypatch.setattr(health.Path, "stat", lambda *_, **__: SimpleNamespace(st_dev=1))
    monkeypatch.setattr(health.os, "statvfs", lambda _: _statvfs(**values))
    monkeypatch.setattr(health, "WRITTEN", ())
    found = list(health.disks(60))
    assert [told in each["details"] for each in found] == ([True] if told else []), found


def test_read_only_is_told_once_a_file_system(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "mounts", lambda: [])
    monkeypatch.setattr(health.os, "statvfs", lambda _: _statvfs(f_flag=os.ST_RDONLY))
    monkeypatch.setattr(health, "WRITTEN", ("/", "/"))
    assert _kinds(health.disks(60)) == [("read-only", "at=/")]


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ("50,peer,3,1.0,0.000012,0,0,1,0,0,0.1,0.01,64.2,Normal", []),
        (",,0,0.0,0.0,0,0,1,0,0,1,1,0.0,Not synchronised", ["follows nobody"]),
        ("50,peer,3,1.0,-4.5,0,0,1,0,0,0.1,0.01,64.2,Normal", ["offset=-4.500s source=peer"]),
        ("50,peer,3,1.0,3600.25,0,0,1,0,0,0.1,0.01,64.2,Insert second", ["offset=3600.250s source=peer"]),
    ],
)
def test_clocks_are_judged(host: Any, row: str, told: list[str]) -> None:
    host.says("chronyc", row + "\n")
    assert [details for _, details in _kinds(health.clock(60))] == told


@pytest.mark.parametrize(("out", "code"), [("", 0), ("506 Cannot talk to daemon", 1), ("1,2,3", 0)])
def test_a_clock_that_can_not_be_asked_is_a_fault(host: Any, out: str, code: int) -> None:
    host.says("chronyc", out, code)
    with pytest.raises(health.Fault):
        list(health.clock(60))


def test_a_queue_that_grows_old_says_how_old_and_why(host: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    message = {
        "queue_name": "deferred",
        "arrival_time": int(time.time()) - 7200,
        "recipients": [{"address": "x", "delay_reason": "store is down"}],
    }
    fresh = {"queue_name": "active", "arrival_time": int(time.time()) - 10, "recipients": [{"address": "y"}]}
    real = health.run
    monkeypatch.setattr(health, "run", lambda *words: real("postqueue", *words[1:]))
    monkeypatch.setattr(health.Path, "exists", lambda _: True)
    host.says("postqueue", json.dumps(fresh) + "\n" + json.dumps(message) + "\n")
    ((kind, details),) = _kinds(health.queue(60))
    assert kind == "queue"
    assert "messages=1 of=2 oldest=2.0h why='store is down'" in details
    host.says("postqueue", json.dumps(fresh) + "\n")
    assert not list(health.queue(60))
    host.says("postqueue", "", 69, "postqueue: fatal: Queue report unavailable")
    with pytest.raises(health.Fault, match="unavailable"):
        list(health.queue(60))


def test_what_is_no_certificate_is_a_fault(host: Any) -> None:
    path = host.pki / "public.crt"
    make = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-keyout",
        str(host.pki / "k"),
        "-out",
    ]
    subprocess.run([*make, str(path), "-subj", "/CN=x", "-days", "90"], check=True, capture_output=True)
    assert not list(health.certificates(60))
    path.write_text("no certificate")
    with pytest.raises(health.Fault):
        list(health.certificates(60))


@pytest.mark.parametrize(
    ("life", "left", "told"),
    [
        (90, 29, False),
        (90, 22, False),
        (90, 20, True),
        (90, -1, True),
        (6, 1.5, False),
        (6, 1.3, True),
        (3650, 22, False),
        (3650, 20, True),
    ],
)
def test_how_much_of_a_certificate_is_left(host: Any, life: float, left: float, told: bool) -> None:
    (host.pki / "public.crt").write_text("x")
    begin, end = time.time() - (life - left) * 86400, time.time() + left * 86400
    dates = [time.strftime("%b %d %H:%M:%S %Y GMT", time.gmtime(moment)) for moment in (begin, end)]
    host.says("openssl", f"notBefore={dates[0]}\nnotAfter={dates[1]}\n")
    assert bool(list(health.certificates(60))) is told


def test_it_runs_as_it_is_sent_and_answers_in_one_line(tmp_path: Path) -> None:
    """Over standard input, on a host where nothing of it works: every part is an answer or a fault."""
    program = Path(health.__file__).read_text(encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-", "60"], input=program, capture_output=True, text=True, check=True, env={"PATH": str(tmp_path)}
    )
    (line,) = done.stdout.splitlines()
    said = json.loads(line.removeprefix(health.MARK))
    assert {"limits", "units", "restarts"} <= set(said["faults"])
    alarms._understood("here", done.stdout)


def _edge(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, pair: dict[str, Any] | None = None, **seen: Any) -> list[tuple[str, str]]:
    """The alarms of an edge that has seen this."""
    calm = {"members": {"frontend1": {"answers": True, "since": 1.0, "why": ""}}, "drained": {}, "alone": None, "twin_silent": None}
    (tmp_path / "watch.json").write_text(json.dumps({**calm, "conflict": None, **seen}))
    if pair is not None:
        (tmp_path / "pair.json").write_text(json.dumps(pair))
    monkeypatch.setattr(health, "EDGE_WATCH", tmp_path / "watch.json")
    monkeypatch.setattr(health, "EDGE_PAIR", tmp_path / "pair.json")
    monkeypatch.setattr(health, "watched", lambda: ["lemonstand-edge-watch.service"])
    return [(each["kind"], each["details"]) for each in health.edges(3600)]


def test_an_edge_that_is_well_has_no_alarm(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert _edge(monkeypatch, tmp_path, {"state": "master", "since": time.time(), "conflict": time.time() - 7200}) == []


@pytest.mark.parametrize(
    ("seen", "kind", "word"),
    [
        ({"members": {"frontend1": {"answers": False, "since": 5.0, "why": "no answer"}}}, "silent", "host=frontend1"),
        ({"conflict": {"since": 5.0, "claims": ["192.0.2.1 on dmz0 by 02:00:00:00:00:01"]}}, "two-edges", "192.0.2.1 on dmz0"),
        ({"alone": 5.0, "twin_silent": 5.0}, "alone", "no other host"),
        ({"twin_silent": 5.0}, "no-twin", "nobody would take over"),
    ],
)
def test_what_an_edge_has_seen_is_an_alarm(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, seen: dict[str, Any], kind: str, word: str
) -> None:
    ((found, details),) = _edge(monkeypatch, tmp_path, **seen)
    assert found == kind
    assert word in details


def test_two_edges_that_were_at_work_stay_an_alarm_for_a_while(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    told = {"conflict": time.time() - 60, "faulted": time.time() - 60, "fault": "conntrackd -c: can't connect"}
    assert [kind for kind, _ in _edge(monkeypatch, tmp_path, told)] == ["two-edges", "hand-over"]


def test_other_hosts_are_asked_nothing_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "watched", lambda: ["dovecot.service"])
    assert list(health.edges(3600)) == []
