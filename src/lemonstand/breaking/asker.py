"""Asks single checks of a site, again and again: the site is read once, the checks are imported once, each question is a forked process."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from lemonstand.breaking.shipped_checks import Answer, Check, shipped
from lemonstand.checks import conftest
from lemonstand.errors import LemonstandError
from lemonstand.evidence import plugin
from lemonstand.policy import load_flows, load_timers
from lemonstand.site import build, read_inventory

FOLDER = Path(conftest.__file__).parent


class Asker:
    """Asks checks of one site.

    Args:
        inventory: the site's inventory, read now.

    Raises:
        LemonstandError: the inventory is not sound.
    """

    def __init__(self, inventory: Path) -> None:
        self._inventory = inventory
        self._site = build(inventory, read_inventory(inventory), load_flows(), load_timers())
        shipped()

    def ask(self, checks: Iterable[Check]) -> list[Answer]:
        """Runs checks, disruptive ones too, and returns what each said.

        Raises:
            LemonstandError: they could not be run.
        """
        wanted = sorted({f"{FOLDER}/test_{check.topic}.py::{check.function}" for check in checks})
        if not wanted:
            return []
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reading)
            _answer(writing, self._inventory, self._site, wanted)
        os.close(writing)
        try:
            with os.fdopen(reading, encoding="utf-8") as stream:
                text = stream.read()
        except BaseException:
            # Whoever is interrupted takes the checks along: one that disturbs would go on for minutes.
            os.kill(child, signal.SIGTERM)
            os.waitpid(child, 0)
            raise
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if status not in {pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED} or not text:
            where = ", ".join(wanted)[:300]
            raise LemonstandError(f"the checks could not be run (pytest says {status})", where, "lemonstand verify says why")
        return [Answer(**entry) for entry in json.loads(text)]


class _Said:
    """Sends what the checks said to whoever asked."""

    def __init__(self, site: Any, writing: int) -> None:
        self._site, self._writing = site, writing

    @pytest.hookimpl(tryfirst=True)
    def pytest_configure(self, config: pytest.Config) -> None:
        """Spares the checks reading the inventory."""
        config.stash[conftest.SITE] = self._site

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """All results, in one piece."""
        recorder: Any = session.config.pluginmanager.get_plugin(plugin.RECORDER)
        answers = []
        for item in session.items:
            result = recorder.result(item)
            place, _, name = item.nodeid.rpartition("::")
            function, _, case = name.partition("[")
            topic = Path(place).stem.removeprefix("test_")
            answers.append(Answer(topic, function, case.removesuffix("]"), result.outcome, result.host, result.message, result.seen))
        with os.fdopen(self._writing, "w", encoding="utf-8") as stream:
            json.dump([asdict(answer) for answer in answers], stream)


def _answer(writing: int, inventory: Path, site: Any, wanted: Sequence[str]) -> None:
    """The forked process: pytest without the user's plugins, options and cache; it never returns."""
    code = int(pytest.ExitCode.INTERNAL_ERROR)
    try:
        nowhere = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(nowhere, stream)
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        for name in ("PYTEST_ADDOPTS", "PYTEST_PLUGINS"):
            os.environ.pop(name, None)
        os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
        sys.dont_write_bytecode = True
        code = int(
            pytest.main(
                [
                    "-p", "no:cacheprovider", "-p", "no:terminal", "-p", plugin.__name__, "--assert=plain", "-c", os.devnull,
                    "--rootdir", str(FOLDER), "--confcutdir", str(FOLDER), "--strict-markers", "--disruptive",
                    "--inventory", str(inventory.absolute()), *wanted,
                ],
                plugins=[_Said(site, writing)],
            )
        )  # fmt: skip
    finally:
        os._exit(code)
