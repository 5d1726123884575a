"""What a site remembers of its operation: who is at work on it, and what was done (docs/decisions/0038)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from lemonstand.admin.access import PYTHON, Hosts, program
from lemonstand.errors import InputError, LemonstandError
from lemonstand.paths import data_dir
from lemonstand.site import Site
from lemonstand.site.shipped import filter_plugin


@dataclass(frozen=True)
class Run:
    """One run as the site remembers it.

    Args:
        id: tells it from others.
        began: when, UTC, as `YYYY-MM-DDThh:mm:ssZ`.
        ended: likewise; empty: nothing says so.
        who: user@controller.
        command: what was typed, or the playbook's name.
        limit: the hosts it was limited to, as a pattern; empty: all.
        version, commit: of the controller's code; `dirty`: with changes that are in no commit.
        result: ok, failed, interrupted, refused, going on, or cut off (it has no end, and nobody holds its lock).
        hosts: how many of its tasks changed each host.
        failed: where it failed, by host.
        notes: an older controller on purpose, seats that were done without, who took its lock away.
    """

    id: str
    began: str
    ended: str
    who: str
    command: str
    limit: str
    version: str
    commit: str
    dirty: bool
    result: str
    hosts: Mapping[str, int] = field(default_factory=dict)
    failed: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Log:
    """What the seats remember, put together.

    Args:
        runs: newest first.
        lock: who is at work, by seat.
        broken: where lines were taken out or changed, by seat.
        unasked: seats that gave no answer, with the reason.
        stamps: of the seats.
    """

    runs: tuple[Run, ...]
    lock: Mapping[str, Mapping[str, Any]]
    broken: Mapping[str, tuple[str, ...]]
    unasked: Mapping[str, str]
    stamps: Mapping[str, Mapping[str, Any] | None]


@cache
def _text() -> str:
    return (data_dir("playbooks") / "files" / "site_state.py").read_text(encoding="utf-8")


def ask(hosts: Hosts, host: str, entry: str, order: Mapping[str, Any]) -> dict[str, Any]:
    """Runs one of the functions of `playbooks/files/site_state.py` on a host.

    Args:
        hosts: the way there.
        host: its name.
        entry: the function: begin, end, free or show.
        order: what it is told.

    Raises:
        LemonstandError: the host can't be reached, or the program failed.
    """
    said = hosts.run(host, PYTHON, program(_text(), order, f"{entry}_encoded"))
    answer: dict[str, Any] = json.loads(said.splitlines()[-1])
    return answer


def seats(site: Site) -> list[str]:
    """The hosts that keep the lock and the history."""
    plugin = filter_plugin("operation")
    names: list[str] = plugin.seats({group: [host.name for host in site.group(group)] for group in plugin.SEATS})
    return names


def _asked(site: Site, hosts: Hosts, entry: str, order: Mapping[str, Any]) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    """The answers of all seats, and those that gave none."""
    found: dict[str, dict[str, Any]] = {}
    lost: dict[str, str] = {}
    for seat in seats(site):
        try:
            found[seat] = ask(hosts, seat, entry, order)
        except LemonstandError as fault:
            lost[seat] = fault.what
    return found, lost


def read_log(site: Site, hosts: Hosts) -> Log:
    """What the site remembers, newest first."""
    me = filter_plugin("operation").controller()
    found, lost = _asked(site, hosts, "show", {"id": "", "controller": me["controller"], "living": me["living"]})
    locks = {seat: answer["lock"] for seat, answer in found.items() if answer["lock"]}
    broken = {seat: tuple(answer["broken"]) for seat, answer in found.items() if answer["broken"]}
    stamps = {seat: answer["stamp"] for seat, answer in found.items()}
    going_on = {lock["id"] for lock in locks.values()}
    return Log(tuple(_runs((answer["history"] for answer in found.values()), going_on)), locks, broken, lost, stamps)


def _runs(histories: Iterable[Sequence[Mapping[str, Any]]], going_on: set[str]) -> list[Run]:
    """The runs of several histories, each once, newest first; the last word on a run counts."""
    begun: dict[str, Mapping[str, Any]] = {}
    ended: dict[str, Mapping[str, Any]] = {}
    freed: dict[str, str] = {}
    for history in histories:
        for event in history:
            name = str(event.get("id"))
            if event.get("event") == "begin":
                begun.setdefault(name, event)
            elif event.get("event") == "end" and str(event.get("time")) >= str(ended.get(name, {}).get("time", "")):
                ended[name] = event
            elif event.get("event") == "freed":
                freed[name] = f"its lock was taken away by {event.get('by')}"
    runs = []
    for name, begin in begun.items():
        end = ended.get(name, {})
        notes = (
            *(["an older controller, on purpose"] if begin.get("older") else []),
            *([f"without {', '.join(begin['without'])}"] if begin.get("without") else []),
            *([freed[name]] if name in freed else []),
        )
        result = str(end.get("result") or ("going on" if name in going_on else "cut off"))
        known: dict[str, Any] = {key: str(begin.get(key) or "") for key in ("who", "command", "limit", "version", "commit")}
        known |= {"dirty": bool(begin.get("dirty")), "result": result, "notes": notes}
        known |= {"hosts": end.get("hosts") or {}, "failed": end.get("failed") or {}}
        runs.append(Run(name, str(begin.get("time")), str(end.get("time") or ""), **known))
    return sorted(runs, key=lambda run: run.began, reverse=True)


def close(site: Site, hosts: Hosts, *, run: str, result: str, changed: Mapping[str, int], failed: Mapping[str, str]) -> dict[str, str]:
    """Says to the seats what came of a run that Ansible could not end itself, and gives its lock back.

    Args:
        run: its id; a seat where it never began is told nothing.
        result: failed or interrupted.
        changed: how many tasks changed each host.
        failed: where it failed, by host.

    Returns:
        Seats that could not be told, with the reason.
    """
    order = {"id": run, "result": result, "hosts": dict(changed), "failed": dict(failed), "known": True}
    return _asked(site, hosts, "end", order)[1]


@contextmanager
def operation(site: Site, hosts: Hosts, command: str, about: str) -> Iterator[None]:
    """Holds the site's lock for something that a command does without Ansible, and writes it into the history.

    Args:
        command: what was typed; no secrets.
        about: the host it is done to, for the history.

    Raises:
        LemonstandError: somebody else is at work, or a newer lemonstand was. Seats that can't be reached are done without.
    """
    plugin = filter_plugin("operation")
    order = {**plugin.code(), **plugin.controller(), "id": plugin.new_id(), "command": command, "limit": "", "lock": True}
    taken, answers = _take(hosts, seats(site), order)
    why = plugin.refusal(answers)
    result, failed = "refused" if why else "interrupted", {}
    try:
        if why:
            what, _, remedy = why.partition(": ")
            raise LemonstandError(what, str(site.inventory), remedy)
        yield
        result = "ok"
    except LemonstandError as fault:
        result, failed = ("refused" if why else "failed"), {about: fault.what}
        raise
    finally:
        ended = {"id": order["id"], "result": result, "hosts": {}, "failed": failed}
        with ThreadPoolExecutor(max_workers=max(1, len(taken))) as pool:
            for done in [pool.submit(ask, hosts, seat, "end", ended) for seat in taken]:
                with suppress(LemonstandError):  # a seat that is lost by now frees itself
                    done.result()


def _take(hosts: Hosts, names: Sequence[str], order: Mapping[str, Any]) -> tuple[list[str], list[dict[str, Any]]]:
    """Has seats take a lock: the first that answers by itself, so that of two who come at once one gets it; then all others at once.

    Returns:
        The seats that took it, and what all answered.
    """
    refused, taken, answers = filter_plugin("operation").refusal, [], []
    left = list(names)

    def note(seat: str, answer: dict[str, Any]) -> None:
        said = {"item": seat, "answer": answer}
        answers.append(said)
        if not refused([said]):
            taken.append(seat)

    while left and not answers:
        with suppress(LemonstandError):
            note(left[0], ask(hosts, left[0], "begin", order))
        left.pop(0)
    if left and taken:
        with ThreadPoolExecutor(max_workers=len(left)) as pool:
            for seat, done in [(seat, pool.submit(ask, hosts, seat, "begin", order)) for seat in left]:
                with suppress(LemonstandError):
                    note(seat, done.result())
    return taken, answers


def unlock(site: Site, hosts: Hosts, run: str = "") -> dict[str, Mapping[str, Any]]:
    """Takes the lock away from whoever has it.

    Args:
        run: only of this one, by its id; empty: of whom the seats name.

    Returns:
        Whom it was taken from, by seat.

    Raises:
        InputError: no seat gives an answer.
    """
    log = read_log(site, hosts)
    if not log.stamps:
        raise InputError("no host that keeps the lock gives an answer", str(site.inventory), "; ".join(log.unasked.values()))
    who = filter_plugin("operation").controller()["who"]
    freed: dict[str, Mapping[str, Any]] = {}
    for seat, lock in log.lock.items():
        if run in ("", lock["id"]):
            answer = ask(hosts, seat, "free", {"id": lock["id"], "who": who})["freed"]
            freed |= {seat: answer} if answer else {}
    return freed
