"""The program that wakes sessions which fell asleep in the moment their mailbox changed: whom it wakes, when, and when never."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from programs import load

PATH = Path(__file__).parents[2] / "roles" / "mail_store" / "files" / "mailbox_nudge.py"
WINDOW = 15.0
SECOND = 1_000_000_000
nudge = load("roles/mail_store/files/mailbox_nudge.py")


def mailbox(path: Path, age: float = 3600.0, cur_age: float = 3600.0) -> Path:
    """A maildir whose parts changed some seconds ago."""
    for part in ("new", "cur", "tmp"):
        (path / part).mkdir(parents=True)
    touched(path, new=age, cur=cur_age)
    return path


def touched(path: Path, **ages: float) -> None:
    for part, age in ages.items():
        at = time.time_ns() - int(age * SECOND)
        os.utime(path / part, ns=(at, at))


def is_new(path: Path) -> bool:
    """Whether something happened in `new` just now."""
    return time.time_ns() - (path / "new").stat().st_mtime_ns < SECOND


@pytest.mark.parametrize(("new", "cur"), [(0.2, 3600), (3600, 0.2), (0.5, 0.5), (14, 3600), (3600, 14)])
def test_a_mailbox_that_changed_lately_is_nudged_and_nothing_stays(tmp_path: Path, new: float, cur: float) -> None:
    """Mail came into `new`; a flag or an expunge changed `cur`."""
    box = mailbox(tmp_path / "Maildir", new, cur)
    assert nudge.Nudger(WINDOW).look([tmp_path]) == 1
    assert is_new(box)
    assert list((box / "new").iterdir()) == []


@pytest.mark.parametrize("age", [16, 30, 3600])
def test_a_mailbox_in_which_all_is_old_is_left_alone(tmp_path: Path, age: float) -> None:
    box = mailbox(tmp_path / "Maildir", age, age)
    before = (box / "new").stat().st_mtime_ns
    assert nudge.Nudger(WINDOW).look([tmp_path]) == 0
    assert (box / "new").stat().st_mtime_ns == before


@pytest.mark.parametrize(
    "layout", ["Maildir", "Maildir/.Sent", "Maildir/.a.b.c", "Maildir/a/b", "Maildir/mailboxes/a.b/dbox", "mail/INBOX"]
)
def test_every_layout_of_names_is_found(tmp_path: Path, layout: str) -> None:
    """Maildir++ and directories in directories, below folders that are mailboxes and folders that are not."""
    mailbox(tmp_path / "Maildir") if layout != "Maildir" else None
    box = mailbox(tmp_path / layout, 0.1)
    assert nudge.Nudger(WINDOW).look([tmp_path]) == 1
    assert is_new(box)


def test_messages_and_links_are_no_mailboxes(tmp_path: Path) -> None:
    """A maildir inside `cur` is nobody's; a link may lead to somebody else."""
    box = mailbox(tmp_path / "alice" / "Maildir")
    inner = mailbox(box / "cur" / "inner", 0.1)
    touched(box, cur=3600)
    other = mailbox(tmp_path / "bob" / "Maildir", 0.1)
    (tmp_path / "alice" / "link").symlink_to(other)
    before = [(each / "new").stat().st_mtime_ns for each in (inner, other)]
    assert nudge.Nudger(WINDOW).look([tmp_path / "alice"]) == 0
    assert [(each / "new").stat().st_mtime_ns for each in (inner, other)] == before


def test_a_nudge_is_no_reason_for_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One change, then a session that falls asleep every two seconds: nudges end a window after the change, and never begin anew."""
    box = mailbox(tmp_path / "Maildir", 0.0)
    nudger = nudge.Nudger(WINDOW)
    start = time.time_ns()
    counts = []
    for turn in range(40):
        now = start + turn * 2 * SECOND
        monkeypatch.setattr(nudge.time, "time_ns", lambda now=now: now)
        counts.append(nudger.look([tmp_path]))
        if counts[-1]:  # the kernel's clock is not ours: the nudge was now
            os.utime(box / "new", ns=(now, now))
            nudger._own[box] = (now, nudger._own[box][1])
    within = int(WINDOW / 2) + 1
    assert counts == [1] * within + [0] * (40 - within)


def test_a_change_after_a_nudge_is_a_change(tmp_path: Path) -> None:
    box = mailbox(tmp_path / "Maildir", 0.1)
    nudger = nudge.Nudger(0.5)
    assert nudger.look([tmp_path]) == 1
    time.sleep(0.6)
    assert nudger.look([tmp_path]) == 0
    (box / "cur" / "1.x:2,S").touch()
    assert nudger.look([tmp_path]) == 1


def test_several_sessions_that_miss_one_change_are_all_woken(tmp_path: Path) -> None:
    """Ten fall asleep one after the other within half a second."""
    mailbox(tmp_path / "Maildir", 0.0)
    nudger = nudge.Nudger(WINDOW)
    for _ in range(10):
        assert nudger.look([tmp_path]) == 1
        time.sleep(0.02)


def test_a_mailbox_that_can_not_be_written_is_named_and_stops_no_other(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mailbox(tmp_path / "a" / "Maildir", 0.1)
    blocked = mailbox(tmp_path / "b" / "Maildir", 0.1)
    (blocked / "new" / f".nudge-{os.getpid()}").mkdir()
    assert nudge.Nudger(WINDOW).look([tmp_path]) == 1
    assert str(blocked / "new") in capsys.readouterr().err


def test_a_file_left_by_one_who_died_is_used_up(tmp_path: Path) -> None:
    box = mailbox(tmp_path / "Maildir", 0.1)
    (box / "new" / f".nudge-{os.getpid()}").touch()
    assert nudge.Nudger(WINDOW).look([tmp_path]) == 1
    assert list((box / "new").iterdir()) == []


@pytest.mark.parametrize(
    ("user", "home"),
    [
        ("alice@lemon.test", "/srv/vmail/lemon.test/alice"),
        ("o'brien@lemon.test", "/srv/vmail/lemon.test/o'brien"),
        ("first+last@sub.lemon.test", "/srv/vmail/sub.lemon.test/first+last"),
        ("alice", None),
        ("", None),
        ("@lemon.test", None),
        ("..@..", None),
        ("../x@lemon.test", None),
        ("alice@../..", None),
        (".@lemon.test", None),
    ],
)
def test_a_user_leads_to_his_home_or_nowhere(user: str, home: str | None) -> None:
    assert nudge.home_of(Path("/srv/vmail"), user) == (Path(home) if home else None)


@given(st.text())
def test_no_name_leads_out_of_the_mail(user: str) -> None:
    found = nudge.home_of(Path("/srv/vmail"), user)
    assert found is None or (found.parent.parent == Path("/srv/vmail") and ".." not in found.parts)


@pytest.mark.parametrize(
    ("line", "user"),
    [
        (b"field:user=alice@lemon.test", "alice@lemon.test"),
        (b"event:imap_client_hibernated\tfield:mailbox=INBOX\tfield:user=bob@lemon.test", "bob@lemon.test"),
        (b"field:mailbox=x", ""),
        (b"", ""),
        (b"field:user=", ""),
        (b"field:user=a\x01tb@lemon.test", ""),
        (b"\xff\xfe\x00", ""),
    ],
)
def test_a_line_names_a_user(line: bytes, user: str) -> None:
    assert nudge.user_of(line) == user


@given(st.binary())
def test_no_line_is_too_strange(line: bytes) -> None:
    assert isinstance(nudge.user_of(line), str)


class Started:
    """The program as systemd starts it: a listening socket and kept connections at descriptor 3 and above."""

    def __init__(self, tmp_path: Path, listening: socket.socket, kept: list[socket.socket]) -> None:
        passed = [listening.fileno(), *(each.fileno() for each in kept)]
        code = (
            "import fcntl, os, sys\n"
            "passed = [int(number) for number in sys.argv[1].split(',')]\n"
            "spare = [fcntl.fcntl(fd, fcntl.F_DUPFD, 100) for fd in passed]\n"
            "[os.dup2(fd, 3 + number) for number, fd in enumerate(spare)]\n"
            "os.environ['LISTEN_FDS'] = str(len(passed))\n"
            "os.execv(sys.executable, [sys.executable, *sys.argv[2:]])"
        )
        self.notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        name = str(tmp_path / f"notify-{time.monotonic_ns()}")
        self.notify.bind(name)
        self.notify.settimeout(20)
        arguments = [str(PATH), "--mail", str(tmp_path / "mail"), "--window", str(WINDOW), "--alive", str(tmp_path / "alive")]
        self.process = subprocess.Popen(
            [sys.executable, "-c", code, ",".join(map(str, passed)), *arguments],
            pass_fds=passed, env={**os.environ, "NOTIFY_SOCKET": name}, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.wait_for(b"READY=1")

    def wait_for(self, words: bytes) -> list[int]:
        while True:
            said, passed, *_ = socket.recv_fds(self.notify, 4096, 4)
            if words in said:
                return list(passed)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


def _nudged(box: Path, since: int) -> bool:
    until = time.monotonic() + 10
    while time.monotonic() < until:
        if (box / "new").stat().st_mtime_ns > since:
            return True
        time.sleep(0.02)
    return False


def test_what_dovecot_says_while_it_is_away_is_heard_when_it_is_back(tmp_path: Path) -> None:
    """A connection is kept by systemd; the program is killed; Dovecot writes; the program is started again."""
    box = mailbox(tmp_path / "mail" / "lemon.test" / "alice" / "Maildir", 1.0)
    with socket.socket(socket.AF_UNIX) as listening, socket.socket(socket.AF_UNIX) as dovecot:
        listening.bind(str(tmp_path / "events"))
        listening.listen()
        dovecot.connect(str(tmp_path / "events"))
        first = Started(tmp_path, listening, [])
        (kept,) = first.wait_for(b"FDSTORE=1")
        begin = (box / "new").stat().st_mtime_ns
        dovecot.sendall(b"field:user=alice@lemon.test\n")
        assert _nudged(box, begin)
        first.kill()
        touched(box, new=1.0)
        (tmp_path / "alive").touch()
        os.utime(tmp_path / "alive", (time.time() + 60, time.time() + 60))  # nothing to catch up with
        begin = (box / "new").stat().st_mtime_ns
        dovecot.sendall(b"field:user=alice@lemon.test\n")
        second = Started(tmp_path, listening, [socket.socket(fileno=kept)])
        try:
            assert _nudged(box, begin)
        finally:
            second.kill()


def test_it_begins_with_what_changed_since_its_last_sign_of_life(tmp_path: Path) -> None:
    """Two hours ago it died; one mailbox changed an hour ago, another three hours ago."""
    lately = mailbox(tmp_path / "mail" / "lemon.test" / "alice" / "Maildir", 3600)
    before = mailbox(tmp_path / "mail" / "lemon.test" / "bob" / "Maildir", 10800, 10800)
    (tmp_path / "alive").touch()
    os.utime(tmp_path / "alive", (time.time() - 7200,) * 2)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "events"))
        listening.listen()
        started = Started(tmp_path, listening, [])
        try:
            assert is_new(lately)
            assert not is_new(before)
        finally:
            started.kill()


def test_without_a_socket_it_says_what_to_start(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(PATH), "--mail", str(tmp_path), "--window", "15", "--alive", str(tmp_path / "alive")],
        capture_output=True, text=True, env={**os.environ, "LISTEN_FDS": "0"}, check=False, timeout=30,
    )  # fmt: skip
    assert done.returncode == 1
    assert "mailbox-nudge.socket" in done.stderr
    assert "Traceback" not in done.stderr
