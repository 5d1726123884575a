"""The command line: exit codes, and that it calls the right things with the right arguments."""

from __future__ import annotations

import inspect
import io
import os
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result
from rich.console import Console

from lemonstand import __version__, cli, paths
from lemonstand import lab as labs
from lemonstand.cli.base import TOPICS
from lemonstand.cli.progress import observer
from lemonstand.deploy import HostTally, Outcome, RunRecord, RunResult
from lemonstand.deploy.record import Failure
from lemonstand.errors import InputError, InputErrors, LemonstandError
from lemonstand.evidence import Selection
from sample_site import in_pairs, sound_site, write_site


def call(*words: str) -> Result:
    """Runs the command."""
    return CliRunner().invoke(cli.main, list(words))


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A sound site."""
    return write_site(tmp_path / "site", sound_site())


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[dict[str, Any]]:
    """Stands for Ansible: keeps what it was asked for. Its first entry's `exit_code` and `record` may be set before."""
    asked: list[dict[str, Any]] = []

    def run(inventory: Path, playbooks: list[Path], **options: Any) -> RunResult:
        asked.append({"inventory": inventory, "playbooks": [path.name for path in playbooks], **options})
        record = RunRecord(hosts={"store": HostTally(ok=3, changed=1)})
        code = int(os.environ.get("SAMPLE_EXIT", "0"))
        if code == 1:
            record._fatal.append(Failure("Configure", "store", "mail_store : Write", "/r/tasks.yml:7", "no room"))
        return RunResult(code, "0123456789abcdef", record, "env A=B ansible-playbook site.yml", tmp_path, 1.0)

    monkeypatch.setattr("lemonstand.cli.deploy.run_playbook", run)
    return asked


def test_version() -> None:
    assert __version__ in call("--version").output


def _homes(command: click.Command) -> set[str]:
    """The modules that have a command or what is below it."""
    found = set() if isinstance(command, click.Group) else {inspect.unwrap(command.callback).__module__.rpartition(".")[2]}  # type: ignore[arg-type]
    return found.union(*(_homes(each) for each in command.commands.values())) if isinstance(command, click.Group) else found


def test_a_command_is_found_in_the_modules_the_table_names() -> None:
    said = {name: {topic for topic, commands in TOPICS.items() if name in commands.split()} for name in cli.main.commands}
    assert said == {name: _homes(command) for name, command in cli.main.commands.items()}
    assert {name for commands in TOPICS.values() for name in commands.split()} == set(said)


def test_check_prints_the_model(site: Path) -> None:
    result = call("check", "--site", str(site))
    assert result.exit_code == 0, result.output
    assert "192.0.2.139" in result.output
    assert "5 hosts, 2 users" in result.output


def test_check_refuses_with_2_and_three_lines(site: Path) -> None:
    (site / "group_vars" / "all" / "more.yml").write_text("lemonstand_tls_profil: both\n", encoding="ascii")
    result = call("check", "--site", str(site))
    assert result.exit_code == 2
    first, second, third = result.stderr.splitlines()
    assert first == "error:  unknown variable 'lemonstand_tls_profil'"
    assert second.startswith("where:  ")
    assert "more.yml:1" in second
    assert third.startswith("remedy: did you mean 'lemonstand_tls_profile'?")


@pytest.mark.parametrize("words", [["check", "--site", "/nowhere"], ["apply", "--stage", "demolish"], ["demolish"], ["apply", "--site"]])
def test_wrong_input_is_2(words: list[str]) -> None:
    assert call(*words).exit_code == 2


def test_apply_runs_the_site_playbook(site: Path, runs: list[dict[str, Any]]) -> None:
    result = call("apply", "--site", str(site), "--limit", "store", "--stage", "configure")
    assert result.exit_code == 0, result.output
    (asked,) = runs
    assert asked["playbooks"] == ["site.yml"]
    assert (asked["check"], asked["limit"], asked["tags"]) == (False, "store,auth", "configure"), (
        "a store without the issuer's keys is broken"
    )
    assert asked["runs"] == paths.site_dir("sample") / "runs"
    assert list(asked["env"]) == ["LEMONSTAND_JUDGED"]


def test_plan_only_checks(site: Path, runs: list[dict[str, Any]]) -> None:
    assert call("plan", "--site", str(site)).exit_code == 0
    assert (runs[0]["check"], runs[0]["diff"]) == (True, True)


def test_bad_model_touches_no_host(site: Path, runs: list[dict[str, Any]]) -> None:
    (site / "group_vars" / "all" / "more.yml").write_text("nonsense: 1\n", encoding="ascii")
    assert call("apply", "--site", str(site)).exit_code == 2
    assert runs == []


def test_failure_tells_how_to_repeat(site: Path, runs: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAMPLE_EXIT", "1")
    result = call("apply", "--site", str(site))
    assert result.exit_code == 1
    assert len(runs) == 1
    for text in (
        "store: mail_store : Write",
        "no room",
        "/r/tasks.yml:7",
        f"lemonstand apply --site {site} --limit store",
        "env A=B ansible-playbook",
    ):
        assert text in result.output


def test_interrupted_apply_says_how_to_finish(site: Path, runs: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAMPLE_EXIT", "130")
    result = call("apply", "--site", str(site), "--limit", "store")
    assert result.exit_code == 130
    assert len(runs) == 1
    assert f"finish it with: lemonstand apply --site {site} --limit store" in result.output


def test_summary_names_users_but_no_password(site: Path) -> None:
    result = call("summary", "--site", str(site))
    assert result.exit_code == 0, result.output
    assert "bob@lemon.example" in result.output
    assert "battery staple" not in result.output
    assert result.output.count("\n  lemonstand ") == 3


def test_lab_environment_is_printed_for_the_shell() -> None:
    result = call("lab", "env", "--name", "other")
    assert result.exit_code == 0
    assert f"export LEMONSTAND_LAB_DIR={paths.lab_dir('other')}" in result.output
    assert "export LEMONSTAND_LAB_PREFIX=10.83" in result.output


def test_lab_commands_reach_the_lab(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[Any, ...]] = []

    def ssh(name: str, host: str, argv: list[str]) -> int:
        seen.append(("ssh", name, host, argv))
        return 7

    monkeypatch.setattr(labs, "up", lambda name, prefix, progress, fresh, site, env: seen.append(("up", name, prefix, site)))
    monkeypatch.setattr(labs, "down", lambda name: seen.append(("down", name)))
    monkeypatch.setattr(labs, "ssh", ssh)
    row = {"host": "edge", "state": "running", "systemd": "degraded", "addresses": [], "memory": 0}
    monkeypatch.setattr(labs, "status", lambda name: [row])
    assert call("lab", "up", "--name", "x", "--prefix", "10.9").exit_code == 0
    assert call("lab", "down").exit_code == 0
    assert call("lab", "ssh", "store", "ls", "-l").exit_code == 7, "the command's own exit code"
    assert call("lab", "status").exit_code == 1, "a lab that is not well is told by the exit code"
    assert seen == [("up", "x", "10.9", None), ("down", "lab"), ("ssh", "lab", "store", ["ls", "-l"])]


def test_lab_error_is_1_and_three_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(name: str) -> None:
        raise LemonstandError("no root", "this user", "sudo")

    monkeypatch.setattr(labs, "down", fail)
    result = call("lab", "down")
    assert result.exit_code == 1
    assert result.stderr == "error:  no root\nwhere:  this user\nremedy: sudo\n"


def test_errors_have_exit_codes() -> None:
    assert LemonstandError("a", "b", "c").exit_code == 1
    assert InputError("a", "b", "c").exit_code == 2
    several = InputErrors([InputError("a", "b", "c"), InputError("d", "e", "f")])
    assert str(several) == "error:  a\nwhere:  b\nremedy: c\n\nerror:  d\nwhere:  e\nremedy: f\n\n2 faults in all"


def test_state_is_for_us_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LEMONSTAND_STATE", str(tmp_path / "own"))
    assert paths.lab_dir("x") == tmp_path / "own" / "labs" / "x"
    assert stat.S_IMODE(paths.lab_dir("x").stat().st_mode) == 0o700
    monkeypatch.delenv("LEMONSTAND_STATE")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "xdg"))
    assert paths.lab_dir("x", create=False) == tmp_path / "xdg" / "lemonstand" / "labs" / "x"
    assert not paths.lab_dir("x", create=False).exists()
    monkeypatch.setenv("LEMONSTAND_CACHE", str(tmp_path / "cache"))
    assert paths.cache_dir() == tmp_path / "cache"


def test_missing_data_is_an_error() -> None:
    with pytest.raises(LemonstandError, match="lacks 'no-such-thing'"):
        paths.data_dir("no-such-thing")


def test_data_is_found_in_a_wheel_and_nowhere_else(tmp_path: Path) -> None:
    package = tmp_path / "site-packages" / "lemonstand"
    (package / "_data" / "roles" / "base").mkdir(parents=True)
    (tmp_path / "roles").mkdir()  # somebody else's, beside site-packages
    for name in ("__init__.py", "paths.py", "errors.py"):
        (package / name).write_bytes((Path(paths.__file__).parent / name).read_bytes())
    program = "from lemonstand.paths import data_dir; print(data_dir('roles'))"
    env = {**os.environ, "PYTHONPATH": str(package.parent)}
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True, env=env, cwd=tmp_path)
    assert done.stdout.strip() == str(package / "_data" / "roles")


@pytest.mark.parametrize("terminal", [True, False], ids=["terminal", "plain"])
def test_progress_shows_hosts_and_hides_differences_unless_asked(terminal: bool) -> None:
    shown = {}
    for differences in (True, False):
        console = Console(file=io.StringIO(), force_terminal=terminal, width=100)
        watcher = observer(console, show_differences=differences)
        watcher.started("Configure", "store", "mail_store : Write [bold]x")
        watcher.difference("store", "Write", "+new line")
        watcher.ended(Outcome("Configure", "store", "mail_store : Write [bold]x", "changed", 1.0))
        watcher.ended(Outcome("Configure", "auth", "Skip me", "skipped", 0.1))
        time.sleep(0.4)  # lets the terminal's picture be drawn
        watcher.finished()
        shown[differences] = console.file.getvalue()  # type: ignore[attr-defined]
    assert "+new line" in shown[True]
    assert "+new line" not in shown[False]
    for text in shown.values():
        assert "mail_store : Write [bold]x" in text
        assert "Skip me" not in text


def test_a_real_site_is_disturbed_only_with_a_second_word(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Selection] = []
    monkeypatch.setattr("lemonstand.evidence.verify", lambda inventory, folder, selection, **options: asked.append(selection) or 0)
    refused = call(*["verify", "--site", str(site), "--disruptive"])
    assert refused.exit_code == 2
    assert "--yes-disturb sample" in refused.stderr
    assert not asked
    assert call(*["verify", "--site", str(site), "--disruptive", "--yes-disturb", "sample"]).exit_code == 0
    assert [selection.disruptive for selection in asked] == [True]


def test_verify_copies_evidence_and_passes_its_exit_code_on(site: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def fake(inventory: Path, folder: Path, selection: Selection, *, merge: bool, plugins: tuple[str, ...]) -> int:
        folder.mkdir(parents=True)
        (folder / "evidence.json").write_text("{}", encoding="utf-8")
        assert selection == Selection(controls=("LEM-3-01",), hosts=("store",), sections=("4.2",), keyword="imap")
        assert merge
        assert plugins == ("lemonstand.breaking.trials",)
        return 1

    monkeypatch.setattr("lemonstand.evidence.verify", fake)
    words = ["verify", "--site", str(site), "--control", "LEM-3-01", "-k", "imap", "--json", str(tmp_path / "deep" / "copy.json")]
    words += ["--host", "store", "--section", "4.2"]
    assert call(*words).exit_code == 1
    assert (tmp_path / "deep" / "copy.json").read_text(encoding="utf-8") == "{}"


@pytest.mark.parametrize("command", ["probe", "mutate", "redteam"])
def test_what_there_is_can_be_listed_without_a_lab(command: str) -> None:
    assert call(command, "--list", "--lab", "nowhere").exit_code == 0


@pytest.mark.parametrize("begun", [False, True], ids=["unknown", "never came up"])
def test_a_lab_that_is_not_up_is_wrong_input_not_a_failed_check(begun: bool) -> None:
    if begun:  # its inventory was refused once its passwords were there
        (paths.lab_dir("nowhere") / "secrets").mkdir()
        (paths.lab_dir("nowhere") / "secrets" / "passwords.yml").write_text("{}\n", encoding="ascii")
    refused = call("verify", "--lab", "nowhere")
    assert refused.exit_code == 2
    assert "no lab 'nowhere' is up" in refused.stderr
    assert "--lab" in refused.stderr
    assert "lemonstand lab up --name nowhere" in refused.stderr


def test_questions_are_listed_and_wrong_ones_refused(site: Path) -> None:
    listed = call(*["probe", "--list", "--site", str(site)])
    assert listed.exit_code == 0
    assert "outage" in listed.stdout
    assert "disturbs" in listed.stdout
    unknown = call(*["probe", "outtage", "--site", str(site)])
    assert unknown.exit_code == 2
    assert "outage" in unknown.stderr
    timed = call(*["probe", "parity", "--seconds", "30", "--site", str(site)])
    assert timed.exit_code == 2
    assert "--seconds" in timed.stderr


def test_a_question_that_disturbs_wants_a_second_word_on_a_real_site(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refused = call(*["probe", "outage", "--site", str(site)])
    assert refused.exit_code == 2
    assert "--yes-disturb sample" in refused.stderr
    blind = call(*["probe", "outage", "--site", str(site), "--yes-disturb", "sample"])
    assert blind.exit_code == 1
    assert "not measurable here" in blind.stderr
    monkeypatch.setenv("LEMONSTAND_PASSWORD", "unused")
    assert call(*["mail", "watch", "--user", "alice@example.org", "--site", str(site)]).exit_code == 1


def test_a_soak_is_asked_for_with_its_time(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    monkeypatch.setattr("lemonstand.evidence.verify", lambda *words, **options: asked.append(words[2]) or 0)
    assert call(*["verify", "--site", str(site), "--soak"]).exit_code == 0
    assert call(*["verify", "--site", str(site), "--soak", "--soak-seconds", "600"]).exit_code == 0
    assert [selection.soak for selection in asked] == [7800, 600]
    assert call(*["verify", "--site", str(site), "--soak-seconds", "600"]).exit_code == 2


def test_a_host_that_is_not_there_is_an_error(site: Path) -> None:
    done = call("verify", "-i", str(site), "--host", "stroe")
    assert done.exit_code == 2
    assert "there is no host 'stroe'" in done.stderr
    assert "did you mean 'store'" in done.stderr


@pytest.fixture
def switched(runs: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The same stand-in, for the switch."""
    from lemonstand.cli import deploy  # noqa: PLC0415

    monkeypatch.setattr("lemonstand.cli.deploy.run_playbook", deploy.run_playbook)
    return runs


def test_the_switch_closes_with_a_reason(site: Path, switched: list[dict[str, Any]]) -> None:
    result = call("service", "close", "--site", str(site), "--cut", "--reason", "a hole in the proxy")
    assert result.exit_code == 0, result.output
    (asked,) = switched
    assert asked["playbooks"] == ["close-service.yml"]
    assert asked["env"] == {"LEMONSTAND_CLOSE_REASON": "a hole in the proxy", "LEMONSTAND_CLOSE_CUT": "true"}
    assert "closed for clients: TCP 143, 587, 993, 465" in result.output


def test_the_switch_opens(site: Path, switched: list[dict[str, Any]]) -> None:
    result = call("service", "open", "--site", str(site))
    assert result.exit_code == 0, result.output
    assert [asked["playbooks"] for asked in switched] == [["open-service.yml"]]


def test_the_switch_takes_one_line_only(site: Path, switched: list[dict[str, Any]]) -> None:
    assert call("service", "close", "--site", str(site), "--reason", "one\ntwo").exit_code == 2
    assert switched == []


def test_a_switch_that_failed_says_how_to_repeat(site: Path, switched: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAMPLE_EXIT", "1")
    result = call("service", "close", "--site", str(site))
    assert result.exit_code == 1
    assert "closed for clients" not in result.output
    assert f"repeat: lemonstand service close --site {site}\n" in result.output


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    """A sound site with two edges, frontends and relays."""
    tree = sound_site()
    in_pairs(tree)
    return write_site(tmp_path / "pairs", tree)


def test_a_frontend_is_drained_until_a_limit(pairs: Path, switched: list[dict[str, Any]]) -> None:
    result = call("service", "drain", "frontend2", "--site", str(pairs), "--limit", "30m", "--reason", "a new kernel")
    assert result.exit_code == 0, result.output
    (asked,) = switched
    assert asked["playbooks"] == ["drain-service.yml"]
    assert asked["env"] == {
        "LEMONSTAND_DRAIN": "frontend2", "LEMONSTAND_DRAIN_SECONDS": "1800", "LEMONSTAND_DRAIN_REASON": "a new kernel",
    }  # fmt: skip
    assert "frontend2 gets no new connections" in result.output
    assert call("service", "undrain", "frontend2", "--site", str(pairs)).exit_code == 0
    assert switched[-1]["playbooks"] == ["undrain-service.yml"]


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (("drain", "store"), "hosts that can be drained: frontend, frontend2, relay, relay2"),
        (("drain", "frontend", "--limit", "soon"), "30m, 2h or 1d"),
        (("drain", "frontend", "--reason", "one\ntwo"), "one line"),
        (("undrain", "frontend9"), "hosts that can be drained"),
    ],
)
def test_what_can_not_be_drained_is_refused(words: tuple[str, ...], what: str, pairs: Path, switched: list[dict[str, Any]]) -> None:
    result = call("service", *words, "--site", str(pairs))
    assert result.exit_code == 2
    assert what in result.stderr
    assert switched == []


def test_the_only_frontend_is_not_drained(site: Path, switched: list[dict[str, Any]]) -> None:
    result = call("service", "drain", "frontend", "--site", str(site))
    assert result.exit_code == 2
    assert "one frontend and one relay" in result.stderr
    assert switched == []


def test_check_lists_deviations_and_gaps(site: Path) -> None:
    more = site / "group_vars" / "all" / "more.yml"
    more.write_text("lemonstand_timer_profile: nat-hostile\n", encoding="ascii")
    settings = site / "group_vars" / "all" / "site.yml"
    settings.write_text(settings.read_text(encoding="utf-8").replace("lemonstand_timer_profile: rfc5383\n", ""), encoding="utf-8")
    result = call("check", "--site", str(site))
    assert result.exit_code == 0, result.output
    assert "deviation: LEM-5-02: timer profile 'nat-hostile': idle_notify = 240, not >= 1500: the path forgets" in result.output
    assert "finding:" not in result.output


def test_flows_are_printed_for_the_site(site: Path) -> None:
    result = call("flows", "--site", str(site))
    assert result.exit_code == 0, result.output
    assert "```mermaid" in result.output
    assert "| imap | internet | frontends | tcp 143 |" in result.output
    assert "managesieve" not in result.output


def test_plan_says_which_rule_was_put_in_by_hand(site: Path, runs: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    from lemonstand.cli import deploy  # noqa: PLC0415

    plain = deploy.run_playbook

    def run(*args: Any, **options: Any) -> RunResult:
        result = plain(*args, **options)
        details = ("would load rules", "runs, and is not in the file: tcp dport 9999 accept")
        result.record.outcomes.append(Outcome("Activate", "store", "nftables : Load rules", "changed", 1.0, details=details))
        result.record.outcomes.append(Outcome("Activate", "edge", "nftables : Load rules", "ok", 1.0, notices=("TCP 143 is closed",)))
        return result

    monkeypatch.setattr("lemonstand.cli.deploy.run_playbook", run)
    output = call("plan", "--site", str(site)).output
    assert "would change  store" in output
    assert "runs, and is not in the file: tcp dport 9999 accept" in output
    assert "notice: TCP 143 is closed (edge)" in output
