"""Submits one message over STARTTLS. Standard library only: in a lab this file's text is sent to the handset and runs there.

Reads an order as JSON from standard input: server, port, address (dialled instead of a look-up; may be empty), ca (PEM; empty: the
system's), user, password, recipients, message (text). Prints JSON: {"reply": …} or {"error": …}.
"""

from __future__ import annotations

import base64
import json
import smtplib
import socket
import ssl
import sys
from typing import Any

TIMEOUT = 30
"""Seconds for each step."""
LONGEST_INITIAL = 512 - len("AUTH PLAIN \r\n")
"""Octets of a response in the line of AUTH (RFC 4954 section 4, RFC 5321 section 4.5.3.1.4)."""


class Client(smtplib.SMTP):
    """An SMTP client that dials a given address and still checks the certificate against the server's name."""

    def __init__(self, server: str, port: int, address: str) -> None:
        self._dialled = address or server
        super().__init__(server, port, timeout=TIMEOUT)

    def login_plain(self, user: str, password: str) -> None:
        """Logs in by PLAIN (RFC 4616), in UTF-8 as it says: smtplib's own `login` takes ASCII only."""
        said = base64.b64encode(f"\0{user}\0{password}".encode()).decode("ascii")
        self.ehlo_or_helo_if_needed()
        # RFC 4954 section 4: no initial response where the line would grow longer than any other command's 512 octets.
        if len(said) > LONGEST_INITIAL:
            code, reply = self.docmd("AUTH", "PLAIN")
            if code == 334:
                code, reply = self.docmd(said)
        else:
            code, reply = self.docmd("AUTH", f"PLAIN {said}")
        if code != 235:
            raise smtplib.SMTPAuthenticationError(code, reply)

    def _get_socket(self, host: str, port: int, timeout: float) -> socket.socket:
        return socket.create_connection((self._dialled, port), timeout)


def submit(order: dict[str, Any]) -> dict[str, str]:
    """Submits the message of an order; see the module for its keys and the answer's."""
    context = ssl.create_default_context(cadata=order["ca"] or None)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        with Client(order["server"], order["port"], order["address"]) as client:
            client.starttls(context=context)
            client.login_plain(order["user"], order["password"])
            refused = client.sendmail(order["user"], order["recipients"], order["message"].encode("utf-8"))
    except smtplib.SMTPRecipientsRefused as error:
        return {"error": _refusals(error.recipients)}
    except smtplib.SMTPResponseException as error:
        said = error.smtp_error
        return {"error": f"{error.smtp_code} {said.decode('utf-8', 'replace') if isinstance(said, bytes) else said}"}
    except (OSError, smtplib.SMTPException) as error:
        return {"error": str(error) or type(error).__name__}
    return {"error": _refusals(refused)} if refused else {"reply": f"accepted by {order['server']} for {', '.join(order['recipients'])}"}


def _refusals(refused: dict[str, tuple[int, bytes]]) -> str:
    return "; ".join(f"{address}: {code} {text.decode('utf-8', 'replace')}" for address, (code, text) in refused.items())


def main() -> None:
    """Carries out the order on standard input."""
    json.dump(submit(json.load(sys.stdin)), sys.stdout)


if __name__ == "__main__":
    main()
