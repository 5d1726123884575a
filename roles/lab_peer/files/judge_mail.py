#!/usr/bin/python3
"""What a mail host elsewhere makes of a message: SPF, DKIM and DMARC, by Debian's packages for that and by nothing of lemonstand's.

judge_mail.py mail ADDRESS SENDER GREETING <MESSAGE     `results`: the field RFC 8601 has for it; `signatures`: each one by itself
judge_mail.py spf ADDRESS SENDER GREETING               `spf`: what SPF says of that address
"""

from __future__ import annotations

import json
import sys
from typing import Any

import authheaders
import dkim
import spf

SIGNATURE = b"dkim-signature"


def signatures(message: bytes) -> list[dict[str, Any]]:
    """Each signature of a message: its domain and selector, and whether it holds."""
    judge = dkim.DKIM(message)
    found = []
    for number in range(sum(name.lower() == SIGNATURE for name, _ in judge.headers)):
        try:
            holds, why = bool(judge.verify(idx=number)), ""
        except dkim.DKIMException as fault:
            holds, why = False, str(fault)
        fields = judge.signature_fields or {}
        named = {word: fields.get(word, b"").decode("ascii", "replace") for word in (b"d", b"s", b"h", b"a")}
        found.append({"holds": holds, "why": why, "domain": named[b"d"], "selector": named[b"s"], "fields": named[b"h"], "by": named[b"a"]})
    return found


def main(words: list[str]) -> int:
    """Judge what the command line says."""
    if len(words) != 4 or words[0] not in {"mail", "spf"}:
        sys.exit(__doc__)
    what, address, sender, greeting = words
    if what == "spf":
        result, why = spf.check2(i=address, s=sender or f"postmaster@{greeting}", h=greeting)
        print(json.dumps({"spf": result, "why": why}))
        return 0
    message = sys.stdin.buffer.read()
    # The null sender stands for the postmaster of who greets (RFC 7208 section 2.4).
    envelope = sender or f"postmaster@{greeting}"
    said = authheaders.authenticate_message(message, "peer.test", ip=address, mail_from=envelope, helo=greeting, spf=True, dmarc=True)
    print(json.dumps({"results": str(said), "signatures": signatures(message)}))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
