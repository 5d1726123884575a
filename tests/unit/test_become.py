"""Becoming root on hosts: a password that sudo wants works in every command, and what sudo refuses is never taken for an answer."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from lemonstand import cli
from lemonstand.admin import Hosts
from lemonstand.cli import access
from lemonstand.deploy import repeat_command, run_playbook
from lemonstand.errors import InputError, LemonstandError
from lemonstand.outcomes import Invalid
from lemonstand.remote.connections import REFUSED, Connection, connection, read_connections
from lemonstand.remote.gather import reach
from lemonstand.remote.prober import Prober
from sample_site import Tree, member, sound_site, write_site

WORD = 'sword\'f$h "4711"'
SUDO = r"""#!/bin/sh
# Stands for sudo: asks for a password unless $NOPASSWD, refuses with -n, reads standard input octet by octet with -S.
ask=yes; [ -n "$NOPASSWD" ] && ask=
quiet=; given=
while :; do case "$1" in
  -n) quiet=yes; shift;;
  -k) shift;;
  -S) given=yes; shift;;
  -p) shift 2;;
  *) break;;
esac; done
if [ -n "$ask" ]; then
  [ -n "$quiet" ] && { echo "sudo: a password is required" >&2; exit 1; }
  IFS= read -r word || { echo "sudo: no password was provided" >&2; exit 1; }
  [ "$word" = "$(cat "$WORD_FILE")" ] || { echo "sudo: 1 incorrect password attempt" >&2; exit 1; }
fi
exec "$@"
"""
SSH = '#!/bin/sh\nfor word in "$@"; do last=$word; done\nexec sh -c "$last"\n'


@pytest.fixture
def over_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stands for a host: ssh that runs here, and a sudo that wants a password."""
    tools = tmp_path / "bin"
    tools.mkdir()
    for name, text in (("sudo", SUDO), ("ssh", SSH)):
        (tools / name).write_text(text, encoding="utf-8")
        (tools / name).chmod(0o755)
    (tmp_path / "word").write_text(WORD, encoding="utf-8")
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    monkeypatch.setenv("LEMONSTAND_PASS_ENVIRONMENT", "WORD_FILE NOPASSWD")
    monkeypatch.setenv("WORD_FILE", str(tmp_path / "word"))
    return tmp_path


def way(password: str = "") -> Connection:
    """A host that is reached as an ordinary user."""
    return connection("auth", {"ansible_user": "ops", "password": password}, Path("sockets"))


def run(line: str, given: str) -> subprocess.CompletedProcess[str]:
    """What the shell over there makes of a line."""
    return subprocess.run(["sh", "-c", line], input=given, check=False, capture_output=True, text=True, timeout=20)


@pytest.mark.parametrize("free", ["", "yes"], ids=["password wanted", "no password wanted"])
@pytest.mark.parametrize("text", ["", "one line", "two\nlines\n", "\n\n", WORD + "\n"])
def test_a_command_gets_all_of_its_input_and_no_password(over_there: Path, monkeypatch: pytest.MonkeyPatch, free: str, text: str) -> None:
    monkeypatch.setenv("NOPASSWD", free)
    done = run(way(WORD).as_root(["cat"]), way(WORD).given(text))
    assert (done.returncode, done.stdout) == (0, text), done.stderr


@pytest.mark.parametrize("code", [0, 1, 2, 77, 127, REFUSED])
def test_what_a_command_answers_is_no_refusal(over_there: Path, code: int) -> None:
    done = run(way(WORD).as_root(["sh", "-c", f"exit {code}"]), way(WORD).given())
    assert done.returncode == code
    assert way(WORD).refusal(done.returncode, done.stderr) == ""


@pytest.mark.parametrize("password", ["", "wrong", " " + WORD])
def test_a_refusal_is_told_as_one(over_there: Path, password: str) -> None:
    done = run(way(password).as_root(["cat"]), way(password).given("secret order"))
    assert done.returncode == REFUSED
    assert "sudo said no: sudo: " in way(password).refusal(done.returncode, done.stderr)
    assert "secret" not in done.stdout + done.stderr


@settings(max_examples=50)
@given(st.text(st.characters(blacklist_categories=("Cs",), blacklist_characters="\0"), max_size=40))
def test_any_word_of_a_command_arrives(text: str) -> None:
    plain = Connection("ssh://x", "", sudo=False)
    assert shlex.split(plain.as_root(["printf", "%s", text])) == ["printf", "%s", text]
    assert shlex.split(way(WORD).as_root(["printf", "%s", text]))[-1] == text


def _site(tmp_path: Path, **variables: str) -> Path:
    tree: Tree = sound_site()
    member(tree, "auths", "auth").update({"ansible_user": "ops", **variables})
    return write_site(tmp_path / "site", tree)


@pytest.mark.parametrize(
    "variables",
    [
        {"ansible_become_password": "{{ vault_sudo }}", "vault_sudo": WORD},
        {"ansible_become_pass": WORD},
        {"ansible_sudo_pass": WORD},
        {"ansible_become_password": WORD, "ansible_become_pass": "wrong"},
    ],
    ids=["from a vault's variable", "the short name", "sudo's own", "two of them"],
)
def test_a_host_s_password_is_found_where_ansible_finds_it(tmp_path: Path, over_there: Path, variables: dict[str, str]) -> None:
    found = read_connections(_site(tmp_path, **variables), tmp_path)
    assert found["auth"].password == WORD
    assert found["store"].password == ""
    assert WORD not in repr(found)


def test_commands_ask_with_it(tmp_path: Path, over_there: Path) -> None:
    with Hosts(_site(tmp_path, ansible_become_password=WORD)) as hosts:
        assert hosts.run("auth", ["cat"], "an order\n") == "an order\n"
    machine = reach(way(WORD))
    assert machine.run("echo %s; exit 3", "two words").stdout == "two words\n"
    assert machine.run("exit 3").rc == 3


def test_alarms_never_take_a_refusal_for_silence(tmp_path: Path, over_there: Path) -> None:
    """`sudo -n` and `journalctl --grep` that finds nothing both say 1."""
    for word in ({}, {"ansible_become_password": "wrong"}):
        with Hosts(_site(tmp_path, **word)) as hosts, pytest.raises(LemonstandError, match="sudo said no") as caught:
            hosts.run("auth", ["journalctl"], codes=(0, 1))
        assert "--ask-become-pass" in caught.value.remedy
    result = CliRunner().invoke(cli.main, ["alarms", "--site", str(_site(tmp_path))])
    assert result.exit_code != 0
    assert "no alarm" not in result.output.replace("no alarms can be told", "")
    assert "sudo said no" in result.output


def test_probes_and_snapshots_say_what_they_lack(over_there: Path) -> None:
    with pytest.raises(Invalid, match="sudo said no"):
        reach(way()).run("true")
    with pytest.raises(Invalid, match="sudo said no"):
        Prober({"auth": way()}).ask("auth", "certificates")


@pytest.mark.parametrize("method", ["su", "doas", "community.general.machinectl"])
def test_another_way_to_become_root_is_refused(tmp_path: Path, method: str) -> None:
    with pytest.raises(InputError, match="by sudo only"):
        connection("auth", {"ansible_user": "ops", "ansible_become_method": method}, tmp_path)


def test_the_word_of_the_command_line_reaches_ansible_and_is_nowhere_else(tmp_path: Path, over_there: Path) -> None:
    local = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable, "ansible_become": True}
    (tmp_path / "hosts.yml").write_text(json.dumps({"all": {"hosts": {"one": local}}}), encoding="ascii")
    write = {"content": "{{ said }}", "dest": f"{tmp_path}/said", "mode": "0600"}
    play = [{"hosts": "one", "gather_facts": False, "tasks": [{"name": "Say", "ansible.builtin.copy": write}]}]
    (tmp_path / "say.yml").write_text(json.dumps(play), encoding="ascii")
    env = {"ANSIBLE_BECOME_PASSWORD_FILE": access.held(WORD), "LEMONSTAND_EXTRA_VARS": access.held(json.dumps({"said": "token-4711"}))}
    result = run_playbook(tmp_path / "hosts.yml", [tmp_path / "say.yml"], runs=tmp_path / "runs", env=env)
    log = result.log.read_text(encoding="utf-8")
    assert result.exit_code == 0, log
    assert "changed=1" in log and "incorrect password" not in log
    assert (tmp_path / "said").read_text(encoding="ascii") == "token-4711"
    assert not list(Path("/dev/shm").glob(f"lemonstand-held-{os.getpid()}-*")), "gone with the run"  # noqa: S108
    shown = repeat_command(tmp_path / "hosts.yml", [tmp_path / "say.yml"], env=env)
    assert "--ask-become-pass" in shown
    assert "/proc/" not in shown
    for path in result.directory.rglob("*"):
        if path.is_file():
            assert WORD not in path.read_text(encoding="utf-8", errors="replace"), path
    assert WORD not in result.command + shown + repr(result)


def test_variables_of_the_command_line_count_as_the_inventory_s(tmp_path: Path) -> None:
    folder = write_site(tmp_path / "site", sound_site())
    (tmp_path / "more.yml").write_text("lemonstand_timer_profile: nat-hostile\n", encoding="ascii")
    given = ["-e", "lemonstand_tls_profile=modern", "-e", f"@{tmp_path}/more.yml", "-e", '{"lemonstand_devices_per_user": 7}']
    done = CliRunner().invoke(cli.main, ["check", "--site", str(folder), *given])
    assert done.exit_code == 0, done.output
    assert "timers 'nat-hostile', TLS 'modern'" in done.output
    assert "LEMONSTAND_EXTRA_VARS" not in os.environ


@pytest.mark.parametrize(
    "text", ["nonsense", "@/nowhere", "@/dev/zero", "[1, 2", "{a: {", "1=2", "lemonstand_tls_profile=sloppy", "foreign=1"]
)
def test_variables_that_are_none_are_refused(tmp_path: Path, text: str) -> None:
    folder = write_site(tmp_path / "site", sound_site())
    done = CliRunner().invoke(cli.main, ["check", "--site", str(folder), "-e", text])
    assert done.exit_code == 2, done.output
    assert "Traceback" not in done.output
    assert done.stderr.startswith("error:")


def test_a_password_that_was_typed_is_in_no_file(monkeypatch: pytest.MonkeyPatch) -> None:
    path = access.held(WORD)
    assert Path(path).read_text(encoding="utf-8") == WORD
    assert not Path(path).stat().st_mode & 0o177
    assert subprocess.run(["cat", path], check=True, capture_output=True, text=True).stdout == WORD


@pytest.mark.parametrize("option", ["--ask-become-pass", "-K", "-J", "--ask-vault-password", "--vault-id=prompt"])
def test_without_a_terminal_nobody_is_asked(tmp_path: Path, option: str) -> None:
    folder = write_site(tmp_path / "site", sound_site())
    done = CliRunner().invoke(cli.main, ["check", "--site", str(folder), option])
    assert done.exit_code == 2
    assert "no terminal" in done.stderr


@pytest.mark.parametrize("kind", ["gone", "empty", "directory", "pipe of nobody", "device", "link to itself", "octets"])
@pytest.mark.parametrize("option", ["--become-password-file", "--vault-password-file"])
def test_password_files_that_are_none(tmp_path: Path, kind: str, option: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access, "PIPE_SECONDS", 0.1)
    path = tmp_path / "word"
    make: dict[str, Any] = {
        "gone": lambda: None,
        "empty": path.touch,
        "directory": path.mkdir,
        "pipe of nobody": lambda: os.mkfifo(path),
        "device": lambda: path.symlink_to("/dev/zero"),
        "link to itself": lambda: path.symlink_to(path),
        "octets": lambda: path.write_bytes(b"\xff\xfe\0"),
    }
    make[kind]()
    given = dict.fromkeys(access.NAMES)
    given.update({"become_file": str(path)} if "become" in option else {"vault_files": (str(path),)})
    with pytest.raises(InputError) as caught:
        access.take(given)
    assert caught.value.remedy


def test_a_password_may_come_out_of_a_pipe(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.write(writing, b"sword\n")
    os.close(writing)
    given = {**dict.fromkeys(access.NAMES), "become_file": f"/dev/fd/{reading}"}
    found = access.take(given)
    assert Path(found.env["ANSIBLE_BECOME_PASSWORD_FILE"]).read_text(encoding="ascii") == "sword"


def test_every_command_that_takes_a_site_takes_them() -> None:
    def commands(group: Any, words: tuple[str, ...] = ()) -> Any:
        for name, command in group.commands.items():
            if hasattr(command, "commands"):
                yield from commands(command, (*words, name))
            else:
                yield (*words, name), {option for parameter in command.params for option in parameter.opts}

    asked = [(words, options) for words, options in commands(cli.main) if "--site" in options]
    assert len(asked) > 20
    for words, options in asked:
        assert {"-K", "-J", "-e", "--vault-password-file", "--become-password-file", "--vault-id"} <= options, words
