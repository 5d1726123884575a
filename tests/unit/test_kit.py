"""What roles say their files by, and the actions that bring hosts to it, on this machine in the place of a host."""

from __future__ import annotations

import base64
import grp
import json
import os
import pwd
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
OWNER, GROUP = pwd.getpwuid(os.getuid()).pw_name, grp.getgrgid(os.getgid()).gr_name


class Play:
    """Plays tasks of a role on this machine."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.role = folder / "roles" / "sample"
        for part in ("tasks", "templates", "files"):
            (self.role / part).mkdir(parents=True)

    def __call__(self, *tasks: dict[str, Any], code: int = 0, options: tuple[str, ...] = (), **known: Any) -> str:
        (self.role / "tasks" / "main.yml").write_text(yaml.safe_dump([{"name": "Task", **task} for task in tasks]), encoding="utf-8")
        play = {"hosts": "all", "connection": "local", "gather_facts": False, "vars": known, "roles": ["sample"]}
        (self.folder / "play.yml").write_text(yaml.safe_dump([play]), encoding="utf-8")
        env = {
            **os.environ,
            "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
            "ANSIBLE_NOCOLOR": "1",
            "ANSIBLE_ROLES_PATH": str(self.folder / "roles"),
        }
        words = [str(Path(sys.executable).parent / "ansible-playbook"), "-i", "localhost,", *options, "play.yml"]
        done = subprocess.run(words, cwd=self.folder, env=env, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr


@pytest.fixture
def play(tmp_path: Path) -> Play:
    return Play(tmp_path)


def files(*entries: dict[str, Any]) -> dict[str, Any]:
    return {"lemonstand.lemonstand.files": {"files": [{"owner": OWNER, "group": GROUP, **entry} for entry in entries]}}


def test_files_of_a_role_come_from_templates_files_and_texts(play: Play, tmp_path: Path) -> None:
    target = tmp_path / "host"
    (play.role / "templates" / "a.j2").write_text(
        "# {{ ansible_managed }}\n{% for word in words %}\n{{ word }}{{ end }}\n{% endfor %}\n", encoding="utf-8"
    )
    (play.role / "files" / "program.py").write_text("print('{{ as it is }}')\n", encoding="utf-8")
    task = files(
        {"path": str(target), "state": "directory"},
        {"path": str(target / "a"), "template": "a.j2", "vars": {"end": "!"}, "validate": "grep -q one! %s"},
        {"path": str(target / "program"), "copy": "program.py", "mode": "0755"},
        {"path": str(target / "text"), "content": "hidden words\n", "mode": "0600", "secret": True},
    )
    said = play(task, options=("--check", "--diff"), words=["one", "two"])
    assert "changed=1" in said and "+one!" in said and "hidden words" not in said and not target.exists()
    assert "changed=1" in play(task, words=["one", "two"])
    assert (target / "a").read_text() == "# Ansible managed\none!\ntwo!\n"
    assert (target / "program").read_text() == "print('{{ as it is }}')\n"
    assert [oct(each.stat().st_mode & 0o777) for each in (target, target / "a", target / "program", target / "text")] == [
        "0o755", "0o644", "0o755", "0o600",
    ]  # fmt: skip
    for options in ((), ("--check", "--diff")):
        assert "changed=0" in play(task, words=["one", "two"], options=options)
    (target / "program").chmod(0o700)
    said = play(task, words=["one", "two"], options=("--check", "--diff"))
    assert "changed=1" in said and '-  "mode": "0700"'.replace('"', "") in said.replace('"', "").replace("    ", "  ")
    assert (target / "program").stat().st_mode & 0o777 == 0o700


def test_a_secret_is_in_no_diff_and_no_output(play: Play, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("the old one\n")
    said = play(files({"path": str(tmp_path / "file"), "content": "the new one\n", "secret": True}), options=("--diff", "-vvv"))
    assert "changed=1" in said and "not shown" in said
    assert "the old one" not in said and "the new one" not in said


def test_a_refused_text_fails_the_task_and_names_the_file(play: Play, tmp_path: Path) -> None:
    said = play(files({"path": str(tmp_path / "file"), "content": "x\n", "validate": "false %s"}), code=2)
    assert f"{tmp_path}/file" in said and "refuses it" in said
    assert not (tmp_path / "file").exists()


WRONG: dict[str, dict[str, Any]] = {
    "absolute": {"path": "relative"},
    "state": {"path": "/x", "state": "link"},
    "mode": {"path": "/x", "content": "", "mode": 640},
    "vaildate": {"path": "/x", "content": "", "vaildate": "true"},
    "none.j2": {"path": "/x", "template": "none.j2"},
}
"""Entries, by a word of why each is refused."""


def refusals(play: Play, *tasks: dict[str, Any]) -> list[str]:
    """Why each of some tasks failed, in one play; of one that did not, nothing."""
    tried = [{**task, "register": f"tried_{number}", "ignore_errors": True} for number, task in enumerate(tasks)]
    told = [f"{{{{ (tried_{number}.msg if tried_{number} is failed else '') | b64encode }}}}" for number in range(len(tasks))]
    said = play(*tried, {"ansible.builtin.debug": {"msg": f"told: {' '.join(f'<{each}>' for each in told)} ."}})
    return [base64.b64decode(each).decode() for each in re.findall(r"<([^<>]*)>", said.partition("told: ")[2].partition(" .")[0])]


@pytest.fixture(scope="module")
def refused(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Why each wrong entry was refused."""
    return dict(zip(WRONG, refusals(Play(tmp_path_factory.mktemp("wrong")), *(files(entry) for entry in WRONG.values())), strict=True))


@pytest.mark.parametrize("words", WRONG)
def test_a_wrong_entry_is_refused_before_a_host_is_asked(refused: dict[str, str], words: str) -> None:
    assert words in refused[words]


PROGRAM = """\
import base64, json
def main_encoded(text):
    order = json.loads(base64.b64decode(text))
    if order.get("fail"):
        import sys
        print("error: it can't be", file=sys.stderr)
        return 3
    print("changed: would do it" if order["check"] else "changed: " + order["word"])
    return 0
"""


def test_a_program_gets_its_order_and_says_what_it_did(play: Play) -> None:
    (play.role / "files" / "it.py").write_text(PROGRAM, encoding="utf-8")
    task = {"lemonstand.lemonstand.program": {"src": "it.py", "order": {"word": "{{ secret }}"}}, "register": "done"}
    show = {"ansible.builtin.debug": {"msg": "{{ done.stdout }} {{ done.changed }}"}}
    said = play(task, show, secret="s3cret", options=("-vvv",))
    assert "changed: s3cret True" in said
    assert "s3cret" not in said.replace("changed: s3cret", "")
    assert "would do it" in play(task, show, secret="s3cret", options=("--check",))
    assert "it can't be" in play({"lemonstand.lemonstand.program": {"src": "it.py", "order": {"fail": True}}}, code=2)


def test_a_tool_that_is_not_there_yet_is_a_change_in_check_mode_alone(play: Play, tmp_path: Path) -> None:
    tool = tmp_path / "tool"
    task = {"lemonstand.lemonstand.activate": {"steps": [{"tool": [str(tool), "apply", "a b"]}]}}
    assert "changed=1" in play(task, options=("--check",))
    assert "not found" in play(task, code=2)
    tool.write_text('#!/bin/sh\n[ "$2" = "a b" ] || exit 4\n[ "$3" = --check ] && echo "changed: would"; exit 0\n')
    tool.chmod(0o755)
    assert "changed=0" in play(task)
    assert "changed=1" in play(task, options=("--check",))


def test_the_manifest_needs_no_host(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "lemonstand.deploy.manifest", str(ROOT / "inventories" / "example")]
    found = json.loads(subprocess.run(words, capture_output=True, text=True, timeout=120, check=True).stdout)
    store = {entry["path"]: entry for entry in found["store1"]["files"]}
    assert len(store["/etc/hosts"]["sha256"]) == 64 and store["/etc/lemonstand/served-users.json"]["mode"] == "0644"
    assert store["/etc/dovecot/dovecot.conf"]["sha256"] is None and "keys of issuers" in store["/etc/dovecot/dovecot.conf"]["during_run"]
    key = store["/etc/lemonstand/pki/mail-store.key"]
    assert key["made_by"] and key["mode"] == "0600" and key["sha256"] is None
    assert "dovecot.service" in found["store1"]["units"] and "vmail" in found["store1"]["accounts"]
    assert "net." in found["store1"]["texts"]["/etc/sysctl.d/60-lemonstand.conf"]


def test_one_task_writes_for_several_roles_what_each_says(play: Play, tmp_path: Path) -> None:
    """Defaults of the role, before them what the play says; and what templates need is worked out once, wherever it is named."""
    for part, text in (
        ("defaults", "sample_word: of the role\nsample_other: by default\n"),
        (
            "vars",
            f"__sample_files:\n  - {{path: {tmp_path}/a, owner: {OWNER}, group: {GROUP}}}\n__sample_packages: [dpkg, no-such-package]\n",
        ),
    ):
        (play.role / part).mkdir()
        (play.role / part / "main.yml").write_text(f"---\n{text}", encoding="utf-8")
    template = play.role / "templates" / f"{tmp_path}/a.j2".lstrip("/")
    template.parent.mkdir(parents=True)
    template.write_text("{{ sample_word }} {{ sample_other }}\n{% for _ in [1, 2] %}\n{{ __costly }}\n{% endfor %}\n", encoding="utf-8")
    costly = f"{{{{ lookup('ansible.builtin.pipe', 'echo x >>{tmp_path}/asked; echo dear') }}}}"
    said = play({"lemonstand.lemonstand.files": {"roles": ["sample"]}}, sample_word="of the play", __costly=costly)
    assert "changed=1" in said
    assert (tmp_path / "a").read_text() == "of the play by default\ndear\ndear\n"
    assert (tmp_path / "asked").read_text() == "x\n"
    assert "there is no role nobody" in play({"lemonstand.lemonstand.files": {"roles": ["nobody"]}}, code=2)


def test_a_step_is_one_thing(play: Play) -> None:
    steps: tuple[dict[str, Any], ...] = ({}, {"unit": "a.service", "tool": ["/bin/true"]})
    found = refusals(play, *({"lemonstand.lemonstand.activate": {"steps": [step]}} for step in steps))
    assert ["a step is one of" in why for why in found] == [True, True]


def test_steps_end_with_the_first_that_fails(play: Play, tmp_path: Path) -> None:
    (play.role / "files" / "it.py").write_text(PROGRAM, encoding="utf-8")
    tools = {name: tmp_path / name for name in ("good", "bad", "never", "confirm")}
    for name, tool in tools.items():
        tool.write_text(
            f"#!/bin/sh\necho {name} >>{tmp_path}/log\necho changed: {name}\n[ {name} != bad ] || {{ echo it broke >&2; exit 5; }}\n"
        )
        tool.chmod(0o755)
    steps: list[dict[str, Any]] = [
        {"program": "it.py", "order": {"word": "first"}},
        {"tool": [str(tools["good"])], "confirm": [str(tools["confirm"])]},
        {"tool": [str(tools["bad"])]},
        {"tool": [str(tools["never"])]},
    ]
    task = {"lemonstand.lemonstand.activate": {"steps": steps}, "register": "done", "ignore_errors": True}
    show = {"ansible.builtin.debug": {"msg": "{{ done.stdout_lines | default(done.stdout.splitlines()) }} {{ done.rc }} {{ done.msg }}"}}
    said = play(task, show)
    assert (tmp_path / "log").read_text().split() == ["good", "confirm", "bad"]
    assert all(word in said for word in ("changed: first", "changed: good", "changed: bad", "5 it broke"))
