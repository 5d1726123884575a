"""The gate evidence passes before it is stored: known passwords and everything that has a secret's form is taken out, in whole."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

GONE = "(hidden)"
SHORTEST = 4
"""Shorter passwords can't be told from other text; the site model wants longer ones."""
FORMS = (
    re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL),
    re.compile(r"\beyJ[A-Za-z0-9_=-]{6,}\.[A-Za-z0-9_=-]{6,}(?:\.[A-Za-z0-9_=-]*)?"),  # a ticket
    re.compile(r"\{(?:ARGON2|S?SHA(?:256|512)?|CRYPT|BLF-CRYPT|SHA512-CRYPT|PBKDF2)[^}]*\}[A-Za-z0-9$./+=,-]{8,}"),
    re.compile(r"\$(?:argon2id?|argon2i|2[aby]|5|6|y)\$[A-Za-z0-9$./+=,-]{12,}"),
    re.compile(r"(?i)(?<=:internal:)[0-9a-f]{16,}"),  # what makes a URLAUTH URL work
    re.compile(r"(?i)(?<=bearer )[A-Za-z0-9._~+/=-]{16,}"),
    re.compile(r"(?i)(?<=auth plain )[A-Za-z0-9+/=]{8,}"),
    re.compile(r"(?i)(?<=authenticate plain )[A-Za-z0-9+/=]{8,}"),
    re.compile(r"AGE-SECRET-KEY-[A-Z0-9]+"),
    re.compile(r"\$ANSIBLE_VAULT;[^\s]+\s+[0-9a-f\s]{32,}"),
)


class Gate:
    """Takes secrets out.

    Args:
        known: secrets of the inventory, such as hashes.
        logins: login names with their passwords; SASL sends the two together, encoded.
    """

    def __init__(self, known: Iterable[str] = (), logins: Iterable[tuple[str, str]] = ()) -> None:
        forms = set(known)
        for name, password in logins:
            forms |= {password, _encoded(password), _encoded(f"\0{name}\0{password}")}
        # The longest first: one secret may be part of another.
        self._forms = sorted((form for form in forms if len(form) >= SHORTEST), key=len, reverse=True)

    def text(self, text: str) -> str:
        """The text without them."""
        return _cleaned(text, [form for form in self._forms if form in text])

    def __call__(self, value: Any) -> Any:
        """A document without them, keys included."""
        # Of thousands of passwords hardly one is anywhere: the document as a whole tells which.
        whole = "\n".join(_strings(value))
        return _without(value, [form for form in self._forms if form in whole])


def _encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield str(key)
            yield from _strings(inner)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _strings(each)


def _without(value: Any, present: Sequence[str]) -> Any:
    if isinstance(value, str):
        return _cleaned(value, present)
    if isinstance(value, Mapping):
        return {_cleaned(str(key), present): _without(inner, present) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_without(each, present) for each in value]
    return value


def _cleaned(text: str, present: Sequence[str]) -> str:
    for form in present:
        text = text.replace(form, GONE)
    for pattern in FORMS:
        text = pattern.sub(GONE, text)
    return text
