"""Commands that come in the same segment as the end of a message (RFC 2920 3.1 lets them)."""

from __future__ import annotations

import contextlib
from typing import Any

from lemonstand.probes.protocols.messages import message
from lemonstand.probes.protocols.smtp import Smtp
from lemonstand.probes.protocols.wire import Account, Endpoint

ENDS = ("DATA", "BDAT")
BEHIND = ("NOOP", "MAIL", "MAIL RCPT")


def past_the_end(endpoint: Endpoint, account: Account, recipient: str) -> dict[str, dict[str, Any]]:
    """Sends a message whose end has commands behind it, each way in a session of its own.

    Returns:
        By end and what was behind it (`DATA, MAIL RCPT`): `answer`: the code that ends the message, 0 if the server closed the connection
        in its place; `ident` of the message.
    """
    return {f"{end}, {behind}": _one(endpoint, account, recipient, end, behind) for end in ENDS for behind in BEHIND}


def _one(endpoint: Endpoint, account: Account, recipient: str, end: str, behind: str) -> dict[str, Any]:
    session = Smtp.open(endpoint, account)
    sample = message(account["user"], recipient)
    session.envelope(account["user"], [recipient])
    more = {
        "NOOP": "NOOP\r\n",
        "MAIL": f"MAIL FROM:<{account['user']}>\r\n",
        "MAIL RCPT": f"MAIL FROM:<{account['user']}>\r\nRCPT TO:<{recipient}>\r\n",
    }[behind].encode()
    if end == "DATA":
        session.command("DATA")
        whole = sample.data + b".\r\n"
    else:
        whole = f"BDAT {len(sample.data)} LAST\r\n".encode() + sample.data
    session.wire.send(whole + more, shown=f"<end of a message> {behind}")
    reply = session.reply()
    with contextlib.suppress(OSError, ValueError):
        session.quit()
    return {"answer": reply.code, "text": reply.text[:200], "ident": sample.ident}
