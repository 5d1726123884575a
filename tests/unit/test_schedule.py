"""A timer on the controller: what stands in its units, and what is refused before anything is written."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner

from lemonstand import cli
from lemonstand.deploy.schedule import Schedule, quoted, service_text, timer_text
from lemonstand.errors import InputError, LemonstandError
from sample_site import sound_site, write_site

SYSTEMCTL = """#!/bin/sh
echo "$*" >>"$CALLS"
case "$*" in *"start lemonstand"*) exit "${FAILS:-0}" ;; *is-active*) echo active ;; esac
"""


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A controller with a systemctl that only writes down what it was told; systemd itself is tried in the lab."""
    for name, text in (
        ("systemctl", SYSTEMCTL),
        ("systemd-analyze", '#!/bin/sh\n[ "$2" = daily ]\n'),
        ("journalctl", "#!/bin/sh\necho no key\n"),
    ):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setenv("CALLS", str(tmp_path / "calls"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return tmp_path


def test_words_of_a_unit_mean_themselves() -> None:
    text = service_text(["/a b/python", '--site=a"b', "50%", "$HOME"], {"LEMONSTAND_STATE": "/st ate"}, "x")
    assert 'ExecStart="/a b/python" "--site=a\\"b" "50%%" "$$HOME"' in text
    assert 'Environment="LEMONSTAND_STATE=/st ate"' in text
    assert quoted("a\\b") == '"a\\\\b"'
    assert "OnCalendar=daily" in timer_text("daily", "x") and "Persistent=true" in timer_text("daily", "x")


@pytest.mark.skipif(not Path("/usr/bin/systemd-analyze").exists(), reason="no systemd here to judge units")
def test_systemd_takes_the_units(tmp_path: Path) -> None:
    (tmp_path / "x.service").write_text(service_text(["/bin/true", "a b", "%"], {"A": "b c"}, "A thing"))
    (tmp_path / "x.timer").write_text(timer_text("daily", "A thing"))
    done = subprocess.run(
        ["/usr/bin/systemd-analyze", "verify", "--man=no", str(tmp_path / "x.timer")], capture_output=True, text=True, check=False
    )
    assert str(tmp_path) not in done.stderr, done.stderr


def test_a_timer_is_set_up_once_the_command_went_well(machine: Path) -> None:
    schedule = Schedule("lemonstand-renew-x", user=True)
    schedule.set_up(["/bin/true"], "daily", {}, "x")
    calls = (machine / "calls").read_text().splitlines()
    assert calls.index("--user start lemonstand-renew-x.service") < calls.index("--user enable --quiet lemonstand-renew-x.timer")
    assert schedule.is_there() and schedule.calendar() == "daily" and schedule.state() == "active"
    assert schedule.timer.stat().st_mode & 0o777 == 0o644
    schedule.take_away()
    assert not schedule.timer.exists() and not schedule.service.exists()


def test_nothing_is_left_of_a_timer_whose_command_fails(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    schedule = Schedule("lemonstand-renew-x", user=True)
    monkeypatch.setenv("FAILS", "1")
    with pytest.raises(LemonstandError, match="no key"):
        schedule.set_up(["/bin/false"], "daily", {}, "x")
    assert not schedule.timer.exists() and not schedule.service.exists()
    with pytest.raises(InputError, match="no time that systemd"):
        schedule.set_up(["/bin/true"], "sometimes", {}, "x")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["-e", "sudo_pass=hidden"], "can be read by everybody"),
        (["--vault-password-file", "/dev/fd/0"], ""),
        (["--ask-become-pass"], "terminal"),
    ],
)
def test_what_only_a_person_could_answer_is_refused(machine: Path, tmp_path: Path, words: list[str], said: str) -> None:
    folder = write_site(tmp_path, sound_site())
    done = CliRunner().invoke(cli.main, ["certificates", "schedule", "--user", "--site", str(folder), *words])
    assert done.exit_code == 2 and said in done.output
    assert "hidden" not in done.output and not (machine / "config").exists()


def test_due_is_no_word_for_new_keys(tmp_path: Path) -> None:
    folder = write_site(tmp_path, sound_site())
    for words in (["--due", "--new-keys"], ["--within", "3"]):
        assert CliRunner().invoke(cli.main, ["certificates", "renew", "--site", str(folder), *words]).exit_code == 2
