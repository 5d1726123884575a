"""An IMAP client that shows exactly what it sends and gets (RFC 9051, RFC 3501)."""

from __future__ import annotations

import base64
import contextlib
import re
import time
from dataclasses import dataclass, field

from lemonstand.probes.events import Later, Refused
from lemonstand.probes.protocols.wire import AGAIN_AFTER, TIMEOUT, Account, Closed, Endpoint, Wire, context

UNTAGGED = 100
"""Lines before an answer: more are none."""
LITERAL = re.compile(rb"~?\{(\d+)\+?\}$")


@dataclass(frozen=True)
class Literal:
    """Octets that stand in a command as a literal; `binary` makes it a literal8 (RFC 3516)."""

    data: bytes
    binary: bool = False


@dataclass
class Answer:
    """What a command brought.

    Args:
        status: OK, NO, BAD, or BYE if the server ended the session instead.
        text: the rest of the tagged line, its code included.
        untagged: the untagged responses without their `* `, literals in place.
    """

    status: str
    text: str
    untagged: list[bytes] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether it succeeded."""
        return self.status == "OK"

    @property
    def code(self) -> str:
        """The response code: `APPENDUID 1 2`; empty if there is none."""
        found = re.match(r"\[([^]]*)\]", self.text)
        return found.group(1) if found else ""

    def lines(self, word: str) -> list[str]:
        """The untagged responses that hold a word such as `SEARCH`, as text."""
        shown = [line.decode("utf-8", "replace") for line in self.untagged]
        return [line for line in shown if re.search(rf"(?:^|\s){re.escape(word)}(?:\s|$)", line.split("\r\n", 1)[0])]

    def plain(self) -> dict[str, str]:
        """For JSON."""
        return {"status": self.status, "code": self.code, "text": self.text[:300]}


class Imap:
    """A session.

    Args:
        wire: a connection that was just opened.
    """

    def __init__(self, wire: Wire) -> None:
        self.wire = wire
        self._count = 0
        self.greeting = self.response().decode("utf-8", "replace")

    @classmethod
    def open(
        cls,
        endpoint: Endpoint,
        account: Account | None = None,
        port: int = 143,
        timeout: float = TIMEOUT,
        *,
        again_after: tuple[float, ...] = AGAIN_AFTER,
        source: str = "",
    ) -> Imap:
        """A session over STARTTLS, logged in if an account is named.

        Args:
            endpoint: the server.
            account: who logs in.
            port: TCP port.
            timeout: seconds each step may take, the connection's opening and those after this one too.
            again_after: seconds after which a login is tried again that the server put off; empty: not at all.
            source: the address of this host to come from; empty: the usual one.

        Raises:
            Refused: the server refused.
            Later: it could not say whether the password is right (RFC 5530 UNAVAILABLE), each time it was asked.
            TimeoutError: a step took longer.
        """
        session = cls(Wire.to(endpoint, port, timeout, source))
        if not session.greeting.upper().startswith("* OK"):
            # PREAUTH too: a session that is logged in before TLS can't be protected any more (RFC 9051 section 11.1).
            raise Refused(f"greeting: {session.greeting[:200]}")
        begun = session.command("STARTTLS")
        if not begun.ok:
            raise Refused(f"STARTTLS: {begun.status} {begun.text}")
        session.wire.nothing_early()
        session.wire.starttls(context(endpoint["ca"]), endpoint["name"])
        if account is not None:
            answer = session.plain(account)
            for pause in again_after:
                if answer.code != "UNAVAILABLE":
                    break
                time.sleep(pause)
                answer = session.plain(account)
            if not answer.ok:
                kind = Later if answer.code == "UNAVAILABLE" else Refused
                raise kind(f"login of {account['user']}: {answer.status} {answer.text}")
        return session

    def command(self, *parts: str | Literal, shown: str | None = None, sync: bool = False) -> Answer:
        """Sends a command and waits for its end.

        Args:
            parts: words, joined by spaces, and literals.
            shown: what stands in the transcript in its place.
            sync: wait for the server's leave before each literal.
        """
        tag = self.begin(*parts, shown=shown, sync=sync)
        return self.finish(tag)

    def begin(self, *parts: str | Literal, shown: str | None = None, sync: bool = False) -> str:
        """Sends a command and returns its tag."""
        self._count += 1
        tag = f"p{self._count}"
        pending = tag.encode()
        for part in parts:
            if isinstance(part, str):
                pending += b" " + part.encode()
                continue
            head = b"~" if part.binary else b""
            pending += b" " + head + b"{%d%s}\r\n" % (len(part.data), b"" if sync else b"+")
            if sync:
                self.wire.send(pending)
                answer = self.leave()
                if not answer.startswith(b"+"):
                    raise Refused(f"no leave for a literal: {answer[:200]!r}")
                pending = b""
            pending += part.data
        self.wire.send(pending + b"\r\n", shown=f"{tag} {shown}" if shown else None)
        return tag

    def finish(self, tag: str) -> Answer:
        """Reads up to the end of a command."""
        untagged: list[bytes] = []
        while True:
            try:
                line = self.response()
            except (Closed, ConnectionResetError):
                ends = [each.decode("utf-8", "replace") for each in untagged if each.upper().startswith(b"BYE")]
                return Answer("BYE", ends[-1] if ends else "closed without a word", untagged)
            if line.startswith(tag.encode() + b" "):
                _, status, *text = line.decode("utf-8", "replace").split(" ", 2)
                return Answer(status.upper(), text[0] if text else "", untagged)
            untagged.append(line.removeprefix(b"* "))

    def response(self, timeout: float | None = None) -> bytes:
        """One whole response: a line with its literals."""
        whole = self.wire.line(timeout)
        last = whole
        while found := LITERAL.search(last):
            data = self.wire.exactly(int(found.group(1)))
            last = self.wire.line()
            whole += b"\r\n" + data + last
        return whole

    def done(self, tag: str) -> Answer:
        """Ends IDLE (RFC 2177)."""
        self.wire.send(b"DONE\r\n")
        return self.finish(tag)

    def leave(self, timeout: float | None = None) -> bytes:
        """The answer to a literal that waits for leave, `+` or a refusal; what is untagged may come before it (RFC 9051 section 7)."""
        for _ in range(UNTAGGED):
            line = self.response(timeout)
            if not line.startswith(b"* ") or line.upper().startswith(b"* BYE"):
                break
        return line

    def plain(self, account: Account) -> Answer:
        """AUTHENTICATE PLAIN with its first response in the same line (RFC 4959)."""
        said = base64.b64encode(f"\0{account['user']}\0{account['password']}".encode()).decode()
        return self.command(f"AUTHENTICATE PLAIN {said}", shown=f"AUTHENTICATE PLAIN <{account['user']}>")

    def capabilities(self) -> list[str]:
        """What CAPABILITY says."""
        lines = self.command("CAPABILITY").lines("CAPABILITY")
        return sorted(lines[0].split()[1:]) if lines else []

    def quit(self) -> None:
        """Says goodbye; never fails."""
        with contextlib.suppress(OSError, ValueError):
            self.command("LOGOUT")
        self.wire.close()


def announced(text: str) -> list[str]:
    """The capabilities in a greeting or in a tagged OK: `[CAPABILITY …]`."""
    found = re.search(r"\[CAPABILITY ([^]]*)\]", text)
    return sorted(found.group(1).split()) if found else []
