"""What a directory is seeded with, judged by the program that seeds it: one rule of what a password is, and of what slapd can compare."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from functools import cache
from types import ModuleType

from lemonstand.paths import data_dir


@cache
def _program() -> ModuleType:
    path = data_dir("roles") / "directory" / "files" / "directory_seed.py"
    spec = importlib.util.spec_from_file_location("lemonstand_directory_seed", path)
    if spec is None or spec.loader is None:
        raise ImportError(str(path))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _judged(judge: Callable[[str], str], text: str) -> str | None:
    try:
        judge(text)
    except _program().SeedError as problem:
        return str(problem)
    return None


def prepared(password: str) -> str:
    """A password in the form in which it is hashed and tried (RFC 8265 section 4.2).

    Raises:
        ValueError: it has none; the text says why and does not hold it.
    """
    program = _program()
    try:
        text: str = program.prepare(password)
    except program.SeedError as problem:
        raise ValueError(str(problem)) from None
    return text


def password_fault(password: str) -> str | None:
    """Why a password could never be typed to log in, or None."""
    return _judged(_program().prepare, password)


def hash_fault(text: str) -> str | None:
    """Why slapd could never find a hash equal to a password, or None."""
    return _judged(_program().stored_hash, text)
