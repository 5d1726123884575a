"""The gate evidence passes before it is stored: known passwords and everything that has a secret's form is taken out, in whole."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Mapping
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
        known: passwords and hashes of the inventory.
        names: login names, which are encoded together with passwords.
    """

    def __init__(self, known: Iterable[str] = (), names: Iterable[str] = ()) -> None:
        plain = {secret for secret in known if len(secret) >= SHORTEST}
        forms = set(plain)
        for secret in plain:
            forms.add(base64.b64encode(secret.encode()).decode())
            forms.update(base64.b64encode(f"\0{name}\0{secret}".encode()).decode() for name in names)
        # The longest first: one secret may be part of another.
        self._known = [re.compile(re.escape(form)) for form in sorted(forms, key=len, reverse=True)]

    def text(self, text: str) -> str:
        """The text without them."""
        for pattern in (*self._known, *FORMS):
            text = pattern.sub(GONE, text)
        return text

    def __call__(self, value: Any) -> Any:
        """A document without them, keys included."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, Mapping):
            return {self.text(str(key)): self(inner) for key, inner in value.items()}
        if isinstance(value, list | tuple):
            return [self(each) for each in value]
        return value
