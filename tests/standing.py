"""Questions to Ansible in forks of processes that have it loaded: loading takes most of a second, and a thousand tests ask.

What a fork does is what `python -P -m MODULE` does, with the same words, environment, directory, streams and end. The first question of
each kind goes to a process of its own, as a user's does.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import runpy
import select
import signal
import subprocess
import sys
import tempfile
import threading
import traceback
import warnings
from collections import Counter
from pathlib import Path
from typing import Any, NoReturn

READER = "lemonstand.site.reader"
OWN = ("LEMONSTAND_", "ANSIBLE_HOME", "PATH")
"""Variables that may differ from one question to the next: what they say is looked up when a question is answered."""
_STREAMS = ("given", "stdout", "stderr")


class Standing:
    """Stands for `subprocess` in a module that asks Ansible.

    Args:
        folder: for what the processes read and write; they end with `close`.
    """

    TimeoutExpired, DEVNULL = subprocess.TimeoutExpired, subprocess.DEVNULL

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._asked: Counter[tuple[Any, ...]] = Counter()
        self._processes: dict[tuple[Any, ...], subprocess.Popen[str]] = {}
        self._lock = threading.Lock()

    def run(self, words: list[str], *, check: bool, **options: Any) -> subprocess.CompletedProcess[str]:
        """As `subprocess.run` of `python -P -m MODULE WORDS…` with `env`, `timeout`, and `input` or nothing to read."""
        if words[:3] != [sys.executable, "-P", "-m"] or "\0" in "".join(words):
            return subprocess.run(words, check=check, **options)
        env: dict[str, str] = options["env"]
        key = words[3], tuple(sorted(item for item in env.items() if not item[0].startswith(OWN)))
        with self._lock:
            self._asked[key] += 1
            if self._asked[key] == 1:
                return subprocess.run(words, check=check, **options)
            process = self._processes.get(key) or self._start(key, env)
            with tempfile.TemporaryDirectory(dir=self._folder) as folder:
                paths = {name: Path(folder, name) for name in _STREAMS}
                paths["given"].write_text(options.get("input") or "", encoding="utf-8")
                order = {"words": words[3:], "env": env, "cwd": str(Path.cwd()), "seconds": options["timeout"], "streams": folder}
                assert process.stdin is not None and process.stdout is not None
                process.stdin.write(json.dumps(order) + "\n")
                process.stdin.flush()
                code = json.loads(process.stdout.readline())
                if code is None:
                    raise subprocess.TimeoutExpired(words, options["timeout"])
                said = [paths[name].read_text(encoding="utf-8", errors="replace") for name in _STREAMS[1:]]
        return subprocess.CompletedProcess(words, code, *said)

    def _start(self, key: tuple[Any, ...], env: dict[str, str]) -> subprocess.Popen[str]:
        home = {"ANSIBLE_HOME": str(self._folder / "ansible")}
        process = self._processes[key] = subprocess.Popen(
            [sys.executable, "-P", __file__, key[0]], env={**env, **home}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        return process

    def close(self) -> None:
        """Ends the processes."""
        for process in self._processes.values():
            with process:
                assert process.stdin is not None
                process.stdin.close()
        self._processes.clear()


def _stand(module: str) -> None:
    """The process: it loads what the module needs, and answers each order in a fork."""
    importlib.import_module(module)
    reader = importlib.import_module(READER)
    if module == READER:
        reader.find_plugins()
        importlib.import_module("ansible.plugins.inventory")  # and with it what ansible-core says of its own plugins
    for line in sys.stdin:
        order = json.loads(line)
        child = os.fork()
        if child == 0:
            _answer(order)
        waiting = os.pidfd_open(child)
        over = bool(select.select([waiting], [], [], order["seconds"])[0])
        os.close(waiting)
        if not over:
            os.kill(child, signal.SIGKILL)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        print(json.dumps(code if over else None), flush=True)


def _answer(order: dict[str, Any]) -> NoReturn:
    """The fork."""
    code: Any = 1
    try:
        for number, name in enumerate(_STREAMS):
            handle = os.open(Path(order["streams"], name), os.O_RDONLY if number == 0 else os.O_WRONLY | os.O_CREAT, 0o600)
            os.dup2(handle, number)
            os.close(handle)
        sys.stdin = os.fdopen(0, encoding="utf-8", closefd=False)
        os.environ.clear()
        os.environ.update(order["env"])
        os.chdir(order["cwd"])
        sys.argv[1:] = order["words"][1:]
        warnings.filterwarnings("ignore", category=RuntimeWarning, module="runpy")  # the module is loaded already
        runpy.run_module(order["words"][0], run_name="__main__", alter_sys=True)
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


if __name__ == "__main__":
    _stand(sys.argv[1])
