"""Octets that pass: what a client stores and is told, compared with what the store keeps and says."""

from __future__ import annotations

import email
import secrets
from typing import Any

from lemonstand.measure.vantage import Finding, Value, Vantage


def transparency(vantage: Vantage, _seconds: int) -> Finding:
    """A long session word for word: what a client stores, and what it is told, compared with what the store keeps and says."""
    frontend = vantage.site.group("frontends")[0].name
    one = vantage.accounts[0]
    found: dict[int, dict[str, Any]] = {}
    for family in vantage.families:
        box = f"probe-{secrets.token_hex(6)}"
        endpoint = vantage.endpoints(family)
        try:
            stored = vantage.ask("script-store", endpoint=endpoint, account=one, box=box)
            outside = vantage.ask("script-outside", endpoint=endpoint, account=one, box=box)
            inside = vantage.prober.ask(frontend, "script-inside", inner_services=vantage.inner_services, account=one, box=box)
        finally:
            vantage.ask("script-remove", endpoint=endpoint, account=one, box=box)
        chunks = vantage.ask("script-chunks", endpoint=endpoint, account=one)
        found[family] = {**stored, "outside": outside, "inside": inside, "chunks": chunks}
    values = []
    for family, each in found.items():
        values += [
            Value(f"IPv{family}: octets stored by APPEND", each["octets"], "B"),
            Value(f"IPv{family}: octets of answers compared", each["outside"]["octets"], "B"),
            Value(f"IPv{family}: answers that differ", _differing(each)),
            Value(f"IPv{family}: messages changed on the way in or out", _changed(each)),
            Value(f"IPv{family}: octets in {each['chunks']['chunks']} chunks (BDAT)", each["chunks"]["octets"], "B"),
            Value(f"IPv{family}: what came of them is the same", each["chunks"]["sent"] == each["chunks"]["got"]),
        ]
    return Finding(values, {"families": found})


def _differing(each: dict[str, Any]) -> int:
    return sum(one != two for one, two in zip(each["outside"]["answers"], each["inside"]["answers"], strict=True))


def _changed(each: dict[str, Any]) -> int:
    return sum(
        not (sent == out == kept) for sent, out, kept in zip(each["sent"], each["outside"]["got"], each["inside"]["got"], strict=False)
    ) + abs(len(each["sent"]) - len(each["outside"]["got"]))


def decoded(message: dict[str, Any]) -> bytes:
    """What the body of a message means, its transfer encoding undone.

    Args:
        message: `header` and `body`, as the probe `old-host` has them.
    """
    whole = email.message_from_bytes((message["header"] + "\r\n\r\n" + message["body"]).encode("latin-1"))
    return bytes(whole.get_payload(decode=True) or b"")
