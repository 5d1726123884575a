"""Composes a message, and has it submitted from here or from a lab's handset."""

from __future__ import annotations

import json
import mimetypes
import shlex
import subprocess
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from email.message import EmailMessage
from email.utils import formatdate, make_msgid
from pathlib import Path

from lemonstand.errors import InputError, LemonstandError
from lemonstand.mail import submit
from lemonstand.paths import lab_dir
from lemonstand.surroundings import environment

VANTAGE = "handset"
"""The lab's host that mail is sent from."""
SUBMISSION = 587
WAIT_SECONDS = 120


@dataclass(frozen=True)
class Order:
    """What is to be submitted where.

    Args:
        server: the name in the server's certificate.
        address: what is dialled instead of looking the name up; empty: look it up.
        ca: PEM of the only CA that is trusted; empty: those of the system.
        user: login name, which is the sender as well.
    """

    server: str
    address: str
    ca: str
    user: str
    password: str = field(repr=False)
    recipients: tuple[str, ...]
    message: str = field(repr=False)
    port: int = SUBMISSION


def compose(sender: str, recipients: Sequence[str], subject: str, body: str, attachments: Sequence[Path]) -> str:
    """The text of a message.

    Args:
        attachments: files to attach.

    Raises:
        InputError: an address or a subject that can't stand in a header, or text that is no UTF-8.
    """
    for address in (sender, *recipients):
        if not address.isascii():
            raise InputError(
                f"'{address}' is no address this site can send from or to", "--from, --to", "write it in ASCII (a domain as xn--…)"
            )
    message = EmailMessage()
    try:
        subject.encode("utf-8")  # or the header would be of an unknown character set
        message["From"] = sender
        message["To"] = ", ".join(recipients)
        message["Subject"] = subject
        message["Date"] = formatdate(localtime=True)
        message["Message-ID"] = make_msgid(domain=sender.rpartition("@")[2] or None)
        message.set_content(body + "\n")
        for path in attachments:
            kind, encoding = mimetypes.guess_type(path.name)
            main, _, sub = (kind if kind and not encoding else "application/octet-stream").partition("/")
            message.add_attachment(path.read_bytes(), maintype=main, subtype=sub, filename=path.name)
        return message.as_string()
    except UnicodeError:
        raise InputError("this is no UTF-8", "--subject, --body, --attach", "give text and names of files in UTF-8") from None
    except ValueError as error:
        raise InputError(f"this can't stand in a header: {error}", "--from, --to, --subject", "leave out line breaks") from None


def send(order: Order, lab: str | None) -> str:
    """Submits a message.

    Args:
        order: the message and the way.
        lab: the lab whose handset sends it; None: this machine does.

    Returns:
        What the server said.

    Raises:
        LemonstandError: it was refused, or the way is blocked.
    """
    answer = submit.submit(asdict(order)) if lab is None else _from_handset(order, lab)
    if "error" in answer:
        raise LemonstandError(
            f"not sent: {answer['error']}", f"{order.server} port {order.port}", "`lemonstand verify` tells what is wrong with the site"
        )
    return answer["reply"]


def _from_handset(order: Order, lab: str) -> dict[str, str]:
    program = Path(submit.__file__).read_text(encoding="utf-8")
    command = ["ssh", "-F", str(lab_dir(lab) / "ssh" / "config"), VANTAGE, shlex.join(["python3", "-c", program])]
    # The order, with the password, goes over standard input: arguments can be read by everyone on a machine.
    try:
        done = subprocess.run(
            command, input=json.dumps(asdict(order)), check=False, capture_output=True, text=True, timeout=WAIT_SECONDS, env=environment()
        )
    except subprocess.TimeoutExpired:
        return {"error": f"no answer from {VANTAGE} after {WAIT_SECONDS} s"}
    if done.returncode:
        return {"error": (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]}
    answer: dict[str, str] = json.loads(done.stdout)
    return answer
