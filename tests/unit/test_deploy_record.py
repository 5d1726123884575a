"""The record of a run, from events as ansible-runner writes them."""

from __future__ import annotations

from typing import Any

import pytest

from lemonstand.deploy import RunRecord
from lemonstand.deploy.record import explain


def event(kind: str, second: int, stdout: str = "", **data: Any) -> dict[str, Any]:
    """An event at a second of some minute."""
    return {"event": kind, "created": f"2026-11-24T10:00:{second:02}+00:00", "stdout": stdout, "event_data": data}


def run_of(*events: dict[str, Any]) -> RunRecord:
    """The record after these events."""
    record = RunRecord()
    for item in events:
        record.take(item)
    return record


def test_seconds_are_counted_per_stage_and_for_the_slowest_host_of_a_task() -> None:
    record = run_of(
        event("playbook_on_play_start", 0, play="Install"),
        event("runner_on_ok", 4, host="edge", task="A", task_path="/r/a.yml:1", duration=3.0),
        event("runner_on_ok", 5, host="store", task="A", task_path="/r/a.yml:1", duration=5.0),
        event("runner_on_skipped", 5, host="store", task="B", task_path="/r/a.yml:5"),
        event("playbook_on_play_start", 10, play="Configure"),
        event("runner_on_ok", 12, host="edge", task="A", task_path="/r/a.yml:1", duration=1.0),
        event("playbook_on_stats", 12, ok={"edge": 2, "store": 1}),
    )
    assert record.stage_seconds == {"Install": 10.0, "Configure": 2.0}
    assert [(task["stage"], task["task"], task["hosts"], task["seconds"]) for task in record.tasks] == [
        ("Install", "A", 2, 5.0),
        ("Configure", "A", 1, 1.0),
    ]
    assert record.hosts["edge"].tasks == 2
    assert record.ended


def test_unreachable_host_is_a_failure() -> None:
    record = run_of(
        event("playbook_on_play_start", 0, play="Install"),
        event("runner_on_unreachable", 1, host="store", task="Gather", res={"msg": "Connection refused", "unreachable": True}),
        event("playbook_on_stats", 2, dark={"store": 1}),
    )
    (failure,) = record.failures
    assert failure.unreachable
    assert failure.message == "Connection refused"
    assert record.hosts["store"].failures == 1


def test_hidden_results_count_as_changes() -> None:
    hidden = {"censored": "the output has been hidden"}
    record = run_of(
        event("runner_item_on_ok", 1, "changed: [auth] => (item=None)", host="auth", task_uuid="u1", res=hidden),
        event("runner_on_ok", 2, host="auth", task="Seed", task_uuid="u1", res=hidden),
        event("runner_item_on_ok", 3, "ok: [auth] => (item=None)", host="auth", task_uuid="u2", res=hidden),
        event("runner_on_ok", 4, host="auth", task="Look", task_uuid="u2", res=hidden),
        event("runner_on_ok", 5, "\r\nTASK [Write] ****\r\nchanged: [auth]", host="auth", task="Write", task_uuid="u3", res=hidden),
    )
    assert [outcome.task for outcome in record.changes] == ["Seed", "Write"]


def test_what_programs_say_of_changes_is_kept() -> None:
    said = "changed: would load rules\nchanged: runs, and is not in the file: tcp dport 9999 accept\nnotice: TCP 143 is closed"
    record = run_of(
        event("runner_on_ok", 1, host="edge", task="Load", res={"changed": True, "stdout": said}),
        event("runner_on_ok", 2, host="frontend", task="Load", res={"changed": False, "stdout": "changed: no\nnotice: TCP 143 is closed"}),
    )
    assert [outcome.details for outcome in record.changes] == [
        ("would load rules", "runs, and is not in the file: tcp dport 9999 accept"),
    ]
    assert record.notices == {"TCP 143 is closed": ["edge", "frontend"]}
    assert record.as_dict()["notices"] == record.notices


def test_ignored_failure_is_none() -> None:
    record = run_of(
        event("runner_on_failed", 1, host="h", task="T", ignore_errors=True, res={"msg": "x"}), event("playbook_on_stats", 2, ok={"h": 1})
    )
    assert record.failures == []
    assert record.outcomes[0].status == "ignored"


@pytest.mark.parametrize(
    ("result", "message"),
    [
        ({"msg": "plain"}, "plain"),
        ({"msg": ["one", "two"]}, "one\ntwo"),
        ({"msg": "non-zero return code", "stderr": "bad\nworse"}, "non-zero return code\nbad\nworse"),
        (
            {"msg": "All items completed", "results": [{"failed": True, "item": "x", "msg": "broke"}, {"item": "y"}]},
            "All items completed\nx: broke",
        ),
        ({"censored": "hidden", "msg": "secret"}, "(hidden: the task handles secrets)"),
        ({}, "the module gave no reason; see the log"),
    ],
)
def test_explanation(result: dict[str, Any], message: str) -> None:
    assert explain(result) == message


def test_long_output_keeps_its_end() -> None:
    text = explain({"msg": "failed", "stderr": "\n".join(f"line {number}" for number in range(100))})
    assert text.startswith("failed\n")
    assert text.endswith("line 99")
    assert len(text.splitlines()) < 20


def test_a_task_of_no_role_is_not_named_after_the_last_one() -> None:
    record = RunRecord()
    for path, name in (("/x/roles/base/tasks/configure.yml:2", "base : Write"), ("/x/playbooks/tasks/configure/edges.yml:3", "Write")):
        data = {"host": "edge", "task": "Write", "role": "base", "task_path": path, "res": {}}
        record.take({"event": "runner_on_ok", "created": "2026-01-01T00:00:00", "event_data": data})
        assert record.outcomes[-1].task == name
