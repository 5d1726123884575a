"""A submission and SMTP client that shows exactly what it sends and gets (RFC 5321, RFC 6409)."""

from __future__ import annotations

import base64
import contextlib
import time
from dataclasses import dataclass

from lemonstand.probes.events import Later, Refused
from lemonstand.probes.protocols.wire import AGAIN_AFTER, TIMEOUT, Account, Closed, Endpoint, Wire, context

CLIENT = "handset.invalid"
"""What the probes call themselves: no name that anybody could hold (RFC 2606)."""


TEMPORARY = 454
"""RFC 4954 section 6: the server can't say now whether the password is right."""


@dataclass(frozen=True)
class Reply:
    """A reply; code 0 means that the server closed the connection instead."""

    code: int
    lines: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether it is a positive completion."""
        return 200 <= self.code < 300

    @property
    def text(self) -> str:
        """All lines in one."""
        return " / ".join(self.lines)

    def plain(self) -> dict[str, object]:
        """For JSON."""
        return {"code": self.code, "text": self.text[:300]}


class Smtp:
    """A session.

    Args:
        wire: a connection that was just opened.
    """

    def __init__(self, wire: Wire) -> None:
        self.wire = wire
        self.greeting = self.reply()
        self.keywords: dict[str, str] = {}

    @classmethod
    def open(
        cls,
        endpoint: Endpoint,
        account: Account | None = None,
        port: int = 587,
        timeout: float = TIMEOUT,
        again_after: tuple[float, ...] = AGAIN_AFTER,
    ) -> Smtp:
        """A session over STARTTLS, logged in if an account is named.

        Args:
            endpoint: the server.
            account: who logs in.
            port: TCP port.
            timeout: seconds each step may take, the connection's opening and those after this one too.
            again_after: seconds after which a login is tried again that the server put off; empty: not at all.

        Raises:
            Refused: the server refused.
            Later: it could not say whether the password is right (RFC 4954 section 6: 454), each time it was asked.
            TimeoutError: a step took longer.
        """
        session = cls(Wire.to(endpoint, port, timeout))
        session.ehlo()
        begun = session.command("STARTTLS")
        if begun.code != 220:
            raise Refused(f"STARTTLS: {begun.code} {begun.text}")
        session.wire.nothing_early()
        session.wire.starttls(context(endpoint["ca"]), endpoint["name"])
        session.ehlo()
        if account is not None:
            answer = session.plain(account)
            for pause in again_after:
                if answer.code != TEMPORARY:
                    break
                time.sleep(pause)
                answer = session.plain(account)
            if answer.code != 235:
                kind = Later if answer.code == TEMPORARY else Refused
                raise kind(f"login of {account['user']}: {answer.code} {answer.text}")
            session.ehlo()
        return session

    def reply(self) -> Reply:
        """The next reply."""
        lines: list[str] = []
        while True:
            try:
                line = self.wire.line().decode("utf-8", "replace")
            except (Closed, ConnectionResetError):
                return Reply(0, (*lines, "closed without a word"))
            lines.append(line[4:])
            if line[3:4] != "-":
                return Reply(int(line[:3]), tuple(lines))

    def command(self, line: str, shown: str | None = None) -> Reply:
        """Sends a line and reads its reply."""
        self.wire.send(line.encode() + b"\r\n", shown)
        return self.reply()

    def ehlo(self) -> dict[str, str]:
        """What EHLO announces: keyword to parameters."""
        reply = self.command(f"EHLO {CLIENT}")
        words = [line.partition(" ")[::2] for line in reply.lines[1:]] if reply.ok else []
        self.keywords = {key.upper(): value.strip() for key, value in words}
        return self.keywords

    def plain(self, account: Account) -> Reply:
        """AUTH PLAIN with its first response in the same line, unless that would be longer than 512 octets (RFC 4954 section 4)."""
        said = base64.b64encode(f"\0{account['user']}\0{account['password']}".encode()).decode()
        if len(said) + len("AUTH PLAIN \r\n") <= 512:
            return self.command(f"AUTH PLAIN {said}", shown=f"AUTH PLAIN <{account['user']}>")
        reply = self.command("AUTH PLAIN")
        return self.command(said, shown=f"<{account['user']}>") if reply.code == 334 else reply

    def envelope(self, sender: str, recipients: list[str], parameters: str = "", each: str = "") -> Reply:
        """MAIL with its parameters and RCPT with those of each; the first reply that is no success, else the last."""
        reply = self.command(f"MAIL FROM:<{sender}>{' ' + parameters if parameters else ''}")
        for recipient in recipients if reply.ok else []:
            reply = self.command(f"RCPT TO:<{recipient}>{' ' + each if each else ''}")
            if not reply.ok:
                break
        return reply

    def data(self, message: bytes) -> Reply:
        """DATA with dots doubled."""
        reply = self.command("DATA")
        if reply.code != 354:
            return reply
        body = b"\r\n".join(b"." + line if line.startswith(b".") else line for line in message.rstrip(b"\r\n").split(b"\r\n"))
        self.wire.send(body + b"\r\n.\r\n", shown=f"<message of {len(message)} bytes>")
        return self.reply()

    def chunk(self, data: bytes, last: bool) -> Reply:
        """BDAT (RFC 3030)."""
        self.wire.send(f"BDAT {len(data)}{' LAST' if last else ''}\r\n".encode())
        self.wire.send(data, shown=f"<{len(data)} bytes>")
        return self.reply()

    def quit(self) -> None:
        """Says goodbye; never fails."""
        with contextlib.suppress(OSError, ValueError):
            self.command("QUIT")
        self.wire.close()
