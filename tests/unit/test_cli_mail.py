"""`lemonstand mail send`: STARTTLS before the password, the right name in the certificate, refusals told."""

from __future__ import annotations

import base64
import datetime
import email
import os
import socket
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from click.testing import CliRunner
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from lemonstand import cli
from lemonstand.errors import InputError, LemonstandError
from lemonstand.mail import Order, compose, send
from sample_site import sound_site, write_site

NAME = "mail.lemon.example"
PASSWORD = "correct horse"


@dataclass
class Server:
    """A server for one session: speaks just enough SMTP to see what a client does in which order."""

    folder: Path
    refuse: str = ""
    port: int = 0
    lines: list[tuple[bool, str]] = field(default_factory=list)
    message: str = ""

    @property
    def certificate(self) -> Path:
        """The server's certificate, which is its own CA."""
        return self.folder / "server.crt"

    def make_certificate(self) -> None:
        """Key and certificate for `NAME`."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, NAME)])
        now = datetime.datetime.now(datetime.UTC)
        builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key()).serial_number(1)
        builder = builder.not_valid_before(now - datetime.timedelta(hours=1)).not_valid_after(now + datetime.timedelta(hours=1))
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(NAME)]), critical=False)
        certificate = builder.sign(key, hashes.SHA256())
        self.certificate.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        (self.folder / "server.key").write_bytes(key.private_bytes(*form))

    def serve(self, listener: socket.socket) -> None:
        """Serves one client."""
        connection, _ = listener.accept()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certificate, self.folder / "server.key")
        try:
            stream = connection.makefile("rwb", buffering=0)
            stream.write(b"220 ready\r\n")
            encrypted = False
            while line := stream.readline().decode().strip():
                self.lines.append((encrypted, line))
                verb = line.split()[0].upper()
                if verb == "STARTTLS":
                    stream.write(b"220 go\r\n")
                    connection = context.wrap_socket(connection, server_side=True)
                    stream, encrypted = connection.makefile("rwb", buffering=0), True
                elif verb == "EHLO":
                    stream.write(b"250-here\r\n250-AUTH PLAIN\r\n250 STARTTLS\r\n")
                elif verb == "DATA":
                    stream.write(b"354 go\r\n")
                    while (text := stream.readline()) != b".\r\n":
                        self.message += text.decode()
                    stream.write(b"250 queued\r\n")
                elif line == "AUTH PLAIN":
                    stream.write(b"334 \r\n")
                    self.lines.append((encrypted, stream.readline().decode().strip()))
                    stream.write(b"235 ok\r\n")
                elif verb == self.refuse:
                    stream.write(b"550 5.7.1 not today\r\n")
                else:
                    stream.write({"AUTH": b"235 ok\r\n", "QUIT": b"221 bye\r\n"}.get(verb, b"250 ok\r\n"))
        except OSError:
            pass  # the client went away, which is what some tests want
        finally:
            connection.close()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """A server on this machine."""
    made = Server(tmp_path)
    made.make_certificate()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        made.port = listener.getsockname()[1]
        thread = threading.Thread(target=made.serve, args=(listener,), daemon=True)
        thread.start()
        yield made
        thread.join(timeout=5)


def order(listening: Server, **changes: object) -> Order:
    """A message from alice to bob."""
    text = compose("alice@lemon.example", ["bob@lemon.example"], "Lemons", "Fresh ones", [])
    given: dict[str, object] = {
        "server": NAME, "address": "127.0.0.1", "ca": listening.certificate.read_text(encoding="ascii"), "user": "alice@lemon.example",
        "password": PASSWORD, "recipients": ("bob@lemon.example",), "message": text, "port": listening.port,
    }  # fmt: skip
    return Order(**{**given, **changes})  # type: ignore[arg-type]


def test_message_arrives_and_the_password_is_encrypted(server: Server) -> None:
    assert "accepted" in send(order(server), None)
    assert email.message_from_string(server.message)["Subject"] == "Lemons"
    secret = base64.b64encode(f"\0alice@lemon.example\0{PASSWORD}".encode()).decode()
    (sent,) = [encrypted for encrypted, line in server.lines if secret in line]
    assert sent, "the password went over the wire in the clear"


@pytest.mark.parametrize(
    "password",
    [
        "Gr\u00fc\u00dfe-aus-K\u00f6ln-2026",
        "Gru\u0308\u00dfe",
        "\u05e1\u05d9\u05e1\u05de\u05d4",
        '\U0001f600 100% \\ "x" ',
        "x" * 512,
        " end ",
    ],
)
def test_any_password_is_typed_as_it_is(server: Server, password: str) -> None:
    assert "accepted" in send(order(server, password=password), None)
    lines = [line for _, line in server.lines]
    (place,) = [number for number, line in enumerate(lines) if line.startswith("AUTH PLAIN")]
    said = lines[place].split()[2] if lines[place] != "AUTH PLAIN" else lines[place + 1]
    assert base64.b64decode(said).decode() == f"\0alice@lemon.example\0{password}"
    assert len(lines[place]) + 2 <= 512, "RFC 4954 section 4"


@pytest.mark.parametrize("changes", [{"server": "other.lemon.example"}, {"ca": ""}], ids=["wrong name", "unknown CA"])
def test_no_password_for_a_stranger(server: Server, changes: dict[str, object]) -> None:
    with pytest.raises(LemonstandError, match=r"(?i)certificate"):
        send(order(server, **changes), None)
    assert not any(line.startswith("AUTH") for _, line in server.lines)


@pytest.mark.parametrize("verb", ["AUTH", "RCPT", "MAIL"])
def test_refusal_is_told(server: Server, verb: str) -> None:
    server.refuse = verb
    with pytest.raises(LemonstandError, match=r"not sent: .*550 5\.7\.1 not today"):
        send(order(server), None)
    assert server.message == ""


def test_attachment_and_letters_survive(tmp_path: Path) -> None:
    picture = tmp_path / "zitrone.png"
    picture.write_bytes(bytes(range(256)))
    text = compose("a@lemon.example", ["b@lemon.example", "c@lemon.example"], "Grüße", "Körbe", [picture])
    message = email.message_from_string(text, policy=email.policy.default)
    assert message["Subject"] == "Grüße"
    assert message["To"] == "b@lemon.example, c@lemon.example"
    (part,) = message.iter_attachments()
    assert (part.get_content_type(), part.get_filename(), part.get_content()) == ("image/png", "zitrone.png", bytes(range(256)))
    assert text.isascii(), "8-bit text needs no extension of the server"


@pytest.mark.parametrize(
    ("recipient", "subject", "body"),
    [
        ("b\u00fccher@lemon.example", "x", ""),
        ("bob@b\u00fccher.example", "x", ""),
        ("bob@lemon.example", "a\udcfcb", ""),
        ("bob@lemon.example", "x", "a\udcfcb"),
    ],
)
def test_what_can_not_be_sent_is_refused_before_anybody_is_asked(recipient: str, subject: str, body: str) -> None:
    with pytest.raises(InputError):
        compose("a@lemon.example", [recipient], subject, body, [])


def test_header_injection_is_refused() -> None:
    with pytest.raises(InputError):
        compose("a@lemon.example", ["b@lemon.example"], "x\nBcc: c@lemon.example", "", [])


def test_password_is_in_no_representation(server: Server) -> None:
    assert PASSWORD not in repr(order(server))
    with socket.create_connection(("127.0.0.1", server.port)):
        pass  # lets the server end


def test_command_takes_the_password_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree = sound_site()
    tree["all"]["lemonstand_pki_dir"] = str(tmp_path / "pki")
    folder = write_site(tmp_path / "site", tree)
    words = ["mail", "send", "--site", str(folder), "--from", "alice@lemon.example", "--to", "bob@lemon.example", "--subject", "Hi"]
    monkeypatch.setenv("LEMONSTAND_PASSWORD", "from the environment")
    early = CliRunner().invoke(cli.main, words)
    assert early.exit_code == 1
    assert "lemonstand apply" in early.stderr

    (tmp_path / "pki" / "public").mkdir(parents=True)
    Server(tmp_path / "pki" / "public").make_certificate()
    for name in ("crt", "key"):
        made = (tmp_path / "pki" / "public" / f"server.{name}").rename(tmp_path / "pki" / "public" / f"ca.{name}")
        made.chmod(0o600)
    pem = (tmp_path / "pki" / "public" / "ca.crt").read_text(encoding="ascii")
    seen: list[tuple[Order, str | None]] = []
    monkeypatch.setattr("lemonstand.mail.send", lambda given, lab: (seen.append((given, lab)), "accepted")[1])  # type: ignore[func-returns-value]
    result = CliRunner().invoke(cli.main, words)
    assert result.exit_code == 0, result.output
    ((given, lab),) = seen
    assert (given.password, given.user, given.server, given.ca, lab) == ("from the environment", "alice@lemon.example", NAME, pem, None)
    monkeypatch.setitem(os.environb, b"LEMONSTAND_PASSWORD", b"Gr\xfc\xdfe")
    latin = CliRunner().invoke(cli.main, words)
    assert latin.exit_code == 2
    assert "no UTF-8" in latin.stderr
    assert len(seen) == 1
