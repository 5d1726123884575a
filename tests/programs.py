"""Programs that travel to hosts or lie on them, as modules of the process that tests them."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[1]


def load(path: str) -> ModuleType:
    """A program by its path in the repository; a new module each time, so that a test may change its constants."""
    spec = importlib.util.spec_from_file_location(Path(path).stem, ROOT / path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Programs of one role lie in one directory, on hosts too, and import one another from there.
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / Path(path).parent))
        spec.loader.exec_module(module)
    return module
