"""Junk in the place of files: every command that reads one says in one sentence what it is, where, and what to do. It never waits."""

from __future__ import annotations

import os
import resource
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lemonstand import cli, paths, survey
from lemonstand import lab as labs
from lemonstand.errors import InputError, InputErrors
from lemonstand.files import read_json, write_text
from lemonstand.lab import snapshots
from lemonstand.lab.seeds import read_passwords
from lemonstand.lab.topology import Topology
from lemonstand.survey import look_at
from sample_site import sound_site, write_site

BOMB = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{chr(98 + n)}: &{chr(98 + n)} [{', '.join(['*' + chr(97 + n)] * 10)}]\n" for n in range(9)
)


def _socket(path: Path) -> None:
    here = Path.cwd()
    os.chdir(path.parent)  # a socket's path has a bound
    try:
        with socket.socket(socket.AF_UNIX) as door:
            door.bind(path.name)
    finally:
        os.chdir(here)


JUNK: dict[str, Callable[[Path], object]] = {
    "octets": lambda path: path.write_bytes(bytes(range(256)) * 8),
    "a picture": lambda path: path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"\0" * 64),
    "a NUL": lambda path: path.write_bytes(b"a: b\0c\n"),
    "Latin-1": lambda path: path.write_bytes("name: Müller\n".encode("latin-1")),
    "UTF-16": lambda path: path.write_bytes("a: b\n".encode("utf-16")),
    "a pipe": os.mkfifo,
    "a socket": _socket,
    "a device": lambda path: path.symlink_to("/dev/zero"),
    "a link to itself": lambda path: path.symlink_to(path),
    "a link to nowhere": lambda path: path.symlink_to("/nowhere/at/all"),
    "a directory": lambda path: path.mkdir(),
    "an alias bomb": lambda path: path.write_text(BOMB, encoding="ascii"),
    "an alias in itself": lambda path: path.write_text("a: &a [*a]\n", encoding="ascii"),
    "a deep nest": lambda path: path.write_text("[" * 100000, encoding="ascii"),
    "a deep block": lambda path: path.write_text("".join(f"{' ' * n}a:\n" for n in range(300)), encoding="ascii"),
    "a huge file": lambda path: os.truncate(os.open(path, os.O_CREAT | os.O_WRONLY), 2**34),
}
PLACES = ("hosts.yml", "group_vars/all/site.yml", "group_vars/all/vault.yml", "host_vars/store.yml", "more.yml", "group_vars/stores")


def _put(folder: Path, name: str, junk: str) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    JUNK[junk](path)
    return path


def call(*words: str) -> Result:
    """Runs the command; nothing but its own end is allowed."""
    began = time.monotonic()
    result = CliRunner().invoke(cli.main, list(words))
    assert time.monotonic() - began < 60
    assert result.exception is None or isinstance(result.exception, SystemExit), repr(result.exception)
    return result


def _refused(result: Result) -> None:
    assert result.exit_code == 2, result.output
    assert result.stderr.startswith("error:"), result.output
    assert "where:" in result.stderr
    assert "remedy:" in result.stderr
    assert "Traceback" not in result.output


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("junk", JUNK)
def test_junk_in_an_inventory_is_named(tmp_path: Path, junk: str, place: str) -> None:
    folder = write_site(tmp_path / "site", sound_site())
    path = _put(folder, place, junk)
    if junk == "a directory" and Path(place).parent.name in {"group_vars", "host_vars"}:
        look_at(folder)  # a directory of variables, which Ansible reads
        return
    if junk in {"an alias bomb", "an alias in itself", "a deep nest", "a deep block"} and path.suffix == "":
        path.rename(path.with_suffix(".yml"))
        path = path.with_suffix(".yml")
    with pytest.raises(InputErrors) as caught:
        look_at(folder)
    (fault,) = [each for each in caught.value.problems if str(path) in each.where]
    assert fault.what
    assert fault.remedy
    assert len(str(fault).splitlines()) == 3


def _commands() -> list[tuple[str, ...]]:
    """Every command that takes a site, with words that would let it go on."""
    more = {
        ("mail", "send"): ("--from", "a@b", "--to", "c@d", "--subject", "x"), ("mail", "watch"): ("--user", "a@b"),
        ("user", "add"): ("a@b",), ("user", "passwd"): ("a@b",), ("user", "lock"): ("a@b",), ("user", "unlock"): ("a@b",),
        ("user", "rename"): ("a@b", "c@b"), ("user", "alias"): ("a@b",), ("user", "quota"): ("a@b", "5G"),
        ("user", "app-password", "add"): ("a@b", "telephone"), ("user", "app-password", "revoke"): ("a@b", "telephone"),
        ("user", "import"): ("list.yml",), ("users", "sync"): ("list.yml",),
        ("user", "delete"): ("a@b",), ("user", "hash"): ("a@b",), ("probe",): ("sleep",),
        ("user", "move"): ("a@b", "--to", "store2"), ("store", "promote"): ("standby1",),
        ("restore", "message"): ("a@b", "--message-id", "x"), ("restore", "mailbox"): ("a@b",), ("restore", "scripts"): ("a@b",),
        ("rebuild",): ("frontend",), ("service", "drain"): ("frontend",), ("service", "undrain"): ("frontend",),
    }  # fmt: skip
    found: list[tuple[str, ...]] = []

    def walk(group: Any, words: tuple[str, ...]) -> None:
        for name, command in group.commands.items():
            here = (*words, name)
            if hasattr(command, "commands"):
                walk(command, here)
            elif any("--site" in parameter.opts for parameter in command.params):
                found.append((*here, *more.get(here, ())))

    walk(cli.main, ())
    return found


@pytest.mark.parametrize("words", _commands(), ids=lambda words: " ".join(words[:2]))
def test_every_command_refuses_an_inventory_with_junk(tmp_path: Path, words: tuple[str, ...]) -> None:
    folder = write_site(tmp_path / "site", sound_site())
    for number, junk in enumerate(JUNK):
        _put(folder, f"group_vars/all/junk{number}.yml", junk)
    _refused(call(*words, "--site", str(folder)))


@pytest.mark.parametrize("junk", [name for name in JUNK if name not in {"an alias bomb", "a deep block", "an alias in itself"}])
def test_every_hosts_file_that_is_none_is_refused(tmp_path: Path, junk: str) -> None:
    path = _put(tmp_path, "site.ini" if junk == "Latin-1" else "site.yml", junk)
    _refused(call("check", "--site", str(path)))


@pytest.mark.parametrize("name", [b"\xff\xfe.yml", b"caf\xe9.yml"], ids=["octets", "Latin-1"])
def test_a_name_that_is_no_text_is_named(tmp_path: Path, name: bytes) -> None:
    folder = write_site(tmp_path / "site", sound_site())
    Path(os.fsdecode(os.fsencode(folder / "group_vars" / "all") + b"/" + name)).write_text("a: b\n", encoding="ascii")
    _refused(call("check", "--site", str(folder)))


def test_a_link_to_a_directory_above_is_named(tmp_path: Path) -> None:
    folder = write_site(tmp_path / "site", sound_site())
    (folder / "group_vars" / "again").symlink_to(folder)
    _refused(call("check", "--site", str(folder)))


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.one_of(st.binary(max_size=200), st.text(max_size=100).map(str.encode), st.from_regex(rb"[\[\]{}&*a: \n-]{0,60}")))
def test_whatever_a_file_holds_looking_at_it_ends(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.yml"
    path.write_bytes(content)
    try:
        look_at(tmp_path)
    except InputErrors as faults:
        assert all(each.what and each.where and each.remedy for each in faults.problems)


STATE: dict[str, bytes] = {
    "empty": b"", "cut off": b'{"prefix": "10.9', "octets": b"\xff\xfe\0\x80", "a list": b"[1, 2]", "null": b"null", "a number": b"1",
    "another form": b'{"prefix": 7, "key": [], "up": "yes"}', "nothing in it": b"{}", "deep": b"[" * 100000,
    "no prefix": b'{"up": true, "key": "x"}',
    "text": b"hello", "a prefix that is none": b'{"prefix": "8.8", "key": "x", "up": true}',
}  # fmt: skip


def _lab(name: str = "sample") -> Path:
    folder = paths.lab_dir(name)
    (folder / "secrets").mkdir()
    (folder / "secrets" / "passwords.yml").write_text("{}\n", encoding="ascii")
    return folder


@pytest.mark.parametrize("kind", STATE)
def test_a_lab_s_state_that_can_t_be_read_is_named(kind: str) -> None:
    (_lab() / "lab.json").write_bytes(STATE[kind])
    asked = [("status",), ("up",), ("env",), ("ssh", "store"), ("snapshot", "x"), ("restore", "x"), ("snapshots", "--drop=x")]
    for command, *rest in asked:
        _refused(call("lab", command, "--name", "sample", *rest))
    _refused(call("check", "--lab", "sample"))
    assert labs.names() == ["sample"], "it can still be taken down"


@pytest.mark.parametrize("kind", STATE)
def test_snapshots_whose_description_is_junk_are_named(kind: str) -> None:
    folder = _lab()
    (folder / "snapshots" / "x").mkdir(parents=True)
    (folder / "snapshots" / "x" / "snapshot.json").write_bytes(STATE[kind])
    with pytest.raises(InputError):
        snapshots.listed(folder)


@pytest.mark.parametrize("content", [b"", b"\xff", b"[1]", b"a: [", b"x: {y: z}", b"1: 2", b"just words"])
def test_a_lab_s_passwords_that_can_t_be_read_are_kept_as_they_are(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "passwords.yml"
    path.write_bytes(content)
    with pytest.raises(InputError):
        read_passwords(path)
    assert path.read_bytes() == content


@pytest.mark.parametrize("kind", STATE)
def test_evidence_that_is_none_is_named(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "evidence.json"
    path.write_bytes(STATE[kind])
    for words in (("report", "--evidence", str(path)), ("evidence", "diff", str(path), str(path)), ("evidence", "verify", str(path))):
        result = call(*words)
        assert result.exit_code in {1, 2}
        assert result.stderr.startswith("error:"), result.output
    folder = write_site(tmp_path / "site", sound_site())
    state = paths.site_dir("sample") / "evidence"
    state.mkdir()
    (state / "evidence.json").write_bytes(STATE[kind])
    _refused(call("evidence", "show", "--site", str(folder)))


@pytest.mark.parametrize("name", ["..", "../x", "a b", "", "A", "x" * 13, "1a", "a/b", "-x", "ä", "a\nb", "\udcff", "a;b", "."])
def test_what_can_t_name_a_lab_is_refused(name: str) -> None:
    for words in (
        ["lab", "status", f"--name={name}"],
        ["lab", "down", f"--name={name}"],
        ["check", f"--lab={name}"],
        ["lab", "up", f"--name={name}"],
    ):
        _refused(call(*words))


PROGRAM = str(Path(sys.executable).parent / "lemonstand")


def _shell(script: str, **env: str) -> subprocess.CompletedProcess[str]:
    """The command as a shell runs it."""
    plain = {name: value for name, value in os.environ.items() if name in {"PATH", "HOME", "LEMONSTAND_STATE", "LEMONSTAND_CACHE"}}
    plain |= env
    return subprocess.run(
        ["sh", "-c", script], check=False, capture_output=True, text=True, errors="replace", timeout=120, stdin=subprocess.DEVNULL,
        env={name: value for name, value in plain.items() if value != "(unset)"},
    )  # fmt: skip


@pytest.mark.parametrize(
    ("env", "code"),
    [
        ({"HOME": "/proc/nowhere", "LEMONSTAND_STATE": "(unset)"}, 2),
        ({"HOME": "/dev/null", "LEMONSTAND_STATE": "(unset)"}, 2),
        ({"HOME": "(unset)"}, 0),
        ({"HOME": "/dev/null"}, 0),
        ({"LEMONSTAND_STATE": "/proc/nowhere"}, 2),
        ({"LEMONSTAND_STATE": "/dev/null/x"}, 2),
        ({"XDG_STATE_HOME": "/proc/nowhere", "LEMONSTAND_STATE": "(unset)"}, 2),
        ({"TERM": "dumb", "COLUMNS": "1", "LINES": "nonsense"}, 0),
        ({"COLUMNS": "0", "LC_ALL": "C", "PYTHONIOENCODING": "ascii"}, 0),
        ({"TERM": "", "COLUMNS": "-7"}, 0),
    ],
    ids=str,
)
def test_a_poor_place_to_work(tmp_path: Path, env: dict[str, str], code: int) -> None:
    folder = write_site(tmp_path / "site", sound_site())
    done = _shell(f"{PROGRAM} summary --site {folder}", **env)
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert code == 0 or done.stderr.startswith("error:")


@pytest.mark.parametrize("script", ["{} | head -c 1", "{} >&-", "{} 2>&-", "{} <&- >&- 2>&-", "{} >/dev/full", "{} 2>/dev/full >/dev/full"])
def test_nobody_listens(tmp_path: Path, script: str) -> None:
    folder = write_site(tmp_path / "site", sound_site())
    for words in (f"check --site {folder}", "check --site /nowhere", "--help"):
        done = _shell(script.format(f"{PROGRAM} {words}"))
        assert "Traceback" not in done.stdout + done.stderr, done.stderr
        assert "Exception ignored" not in done.stderr


def test_a_full_disk_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bound on the size of files stands for a full disk: the same call fails, in the same place."""
    path = tmp_path / "state.json"
    write_text(path, '{"old": true}')
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    import signal  # noqa: PLC0415

    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64, before[1]))
    try:
        with pytest.raises(InputError, match="can't be written") as caught:
            write_text(path, "x" * 100000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert caught.value.exit_code == 2
    assert read_json(path, "it", "none") == {"old": True}
    assert [each.name for each in tmp_path.iterdir()] == ["state.json"], "nothing half written is left"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_no_run_begins_without_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_site(tmp_path / "site", sound_site())
    monkeypatch.setattr("lemonstand.deploy.run.FREE_OCTETS", 2**62)
    result = call("apply", "--site", str(folder))
    assert result.exit_code == 2
    assert "MiB free" in result.stderr
    assert "nothing was touched" in result.stderr


def test_survey_takes_what_sites_hold(tmp_path: Path) -> None:
    """Pictures, keys, notes and directories of variables are no junk."""
    folder = write_site(tmp_path / "site", sound_site())
    (folder / "plan.png").write_bytes(b"\x89PNG\0\xff")
    (folder / "files").mkdir()
    (folder / "files" / "public.pem").write_text("-----BEGIN CERTIFICATE-----\n", encoding="ascii")
    (folder / "group_vars" / "stores").mkdir()
    (folder / "group_vars" / "stores" / "own.yml").write_text("a: &x {b: 1}\nc: *x\n", encoding="ascii")
    (folder / "more").symlink_to(tmp_path)  # out of the site: Ansible would not follow it either
    (folder / "more").unlink()
    look_at(folder)
    assert survey.grown(BOMB, "x") is not None
    Topology("sample")
