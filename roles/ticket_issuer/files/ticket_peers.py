"""What one issuer counted counts at every other: brings this host's events to its twins, and takes theirs.

Runs on the auth host as the issuer's user, beside the issuer, with a listener and a CA that are for twins alone: what frontends reach knows
nothing of it. Standard library. The counts themselves are `ticket_issuer.Refusals`, in the file that both have open.

    POST /events      {"origin", "after", "events"}     200 {"heard"}; 409 {"heard"}: what comes before is missing here
    POST /everything  {"origin", "number", "counts", "places"}     200 {"heard"}: for a twin that has nothing, or missed too much

A twin that is away gets what it missed when it is back. It is asked every `BEAT` seconds whether it is there.
"""

import argparse
import http.client
import http.server
import json
import logging
import pathlib
import socket
import socketserver
import ssl
import sys
import threading
import time
from typing import Any

from ticket_issuer import Refusals, Settings, certificate_names

log = logging.getLogger("ticket_peers")

SETTINGS = pathlib.Path("/etc/lemonstand/ticket/issuer.json")
KEYS = pathlib.Path("/run/ticket-peers")
"""Copies the unit makes, in memory."""
LOOK_SECONDS = 0.2
"""Between two looks at what was counted here."""
BEAT = 2.0
ANSWER_SECONDS = 3.0
IDLE_SECONDS = 15.0
"""Of a connection on which nothing comes."""
LOST_SECONDS, REMIND_SECONDS = 5.0, 600.0
"""After how long a twin that gives no answer is told of, and how often again."""
MOST_AT_ONCE = 500
LONGEST_BODY = 64 * 2**20


class Gap(Exception):
    """The other issuer does not have what comes before these events."""


class Listener(socketserver.ThreadingMixIn, http.server.HTTPServer):
    """Takes connections; each shakes hands in a thread of its own."""

    daemon_threads = True
    address_family = socket.AF_INET6

    def __init__(self, address: str, port: int, context: ssl.SSLContext, names: frozenset[str], refusals: Refusals) -> None:
        self.context, self.names, self.refusals = context, names, refusals
        self.address_family = socket.AF_INET6 if ":" in address else socket.AF_INET
        super().__init__((address, port), Handler)

    def server_bind(self) -> None:
        """Bind without asking anybody for this host's name."""
        if self.address_family == socket.AF_INET6:
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        socketserver.TCPServer.server_bind(self)

    def finish_request(self, request: Any, client_address: Any) -> None:
        """Shake hands, and serve who has a twin's certificate."""
        request.settimeout(IDLE_SECONDS)
        try:
            with self.context.wrap_socket(request, server_side=True) as secured:
                if certificate_names(secured.getpeercert()) & self.names:
                    super().finish_request(secured, client_address)
        except OSError:
            return

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say in a line what went wrong; not what was sent."""
        log.warning("a question of %s failed: %s", client_address[0], type(sys.exc_info()[1]).__name__)


class Handler(http.server.BaseHTTPRequestHandler):
    """Takes what a twin counted."""

    protocol_version = "HTTP/1.1"
    server: Listener

    def do_POST(self) -> None:
        """Take events, or everything."""
        length = int(self.headers.get("Content-Length") or 0)
        if not 0 < length <= LONGEST_BODY:
            self.close_connection = True
            self._answer(413, {})
            return
        refusals = self.server.refusals
        try:
            given = json.loads(self.rfile.read(length))
            origin = str(given["origin"])
            if self.path == "/everything":
                refusals.take(origin, given)
            elif self.path == "/events":
                heard = refusals.heard(origin)
                if heard is None or heard < int(given["after"]):
                    self._answer(409, {"heard": heard})
                    return
                events = [(int(number), float(at), str(what), str(key)) for number, at, what, key in given["events"]]
                if events:
                    refusals.hear(origin, events)
            else:
                self._answer(404, {})
                return
        except (ValueError, KeyError, TypeError):
            self._answer(400, {})
            return
        self._answer(200, {"heard": refusals.heard(origin)})

    def _answer(self, status: int, what: dict[str, Any]) -> None:
        body = json.dumps(what).encode()
        self.send_response_only(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: names that were tried may be passwords."""


class Twin(threading.Thread):
    """Brings what was counted here to one twin, for as long as this process lives.

    Args:
        name: as in its certificate.
        port: where it listens.
        context: with this host's certificate.
        refusals: what was counted.
    """

    def __init__(self, name: str, port: int, context: ssl.SSLContext, refusals: Refusals) -> None:
        super().__init__(name=name, daemon=True)
        self._twin, self._port, self._context, self._refusals = name, port, context, refusals
        self._connection: http.client.HTTPSConnection | None = None
        self._last_answer = time.monotonic()
        self._told: float | None = None

    def run(self) -> None:
        """Tell, over and over."""
        after = 0
        asked = 0.0
        while True:
            try:
                first, events = self._refusals.events(after, MOST_AT_ONCE)
                if first > after + 1 and events:
                    raise Gap
                if events or time.monotonic() - asked >= BEAT:
                    asked = time.monotonic()
                    after = self._tell(after, events)
                    self._answered()
            except Gap:
                after = self._tell_everything()
            except (OSError, http.client.HTTPException, ValueError) as problem:
                self._silent(problem)
                time.sleep(1.0)
            time.sleep(LOOK_SECONDS)

    def _tell(self, after: int, events: list[Any]) -> int:
        """Bring events over; return up to which the twin has them now.

        Raises:
            Gap: it lacks what comes before.
        """
        status, answer = self._post("/events", {"origin": self._refusals.origin(), "after": after, "events": events})
        if status == 409:
            raise Gap
        if status != 200:
            raise ValueError(f"answer {status}")
        return int(answer["heard"])

    def _tell_everything(self) -> int:
        try:
            status, answer = self._post("/everything", {"origin": self._refusals.origin(), **self._refusals.everything()})
            if status == 200:
                return int(answer["heard"])
        except (OSError, http.client.HTTPException, ValueError) as problem:
            self._silent(problem)
        time.sleep(1.0)
        return 0

    def _post(self, path: str, what: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        if self._connection is None:
            self._connection = http.client.HTTPSConnection(self._twin, self._port, timeout=ANSWER_SECONDS, context=self._context)
        try:
            self._connection.request("POST", path, json.dumps(what).encode(), {"Content-Type": "application/json"})
            answer = self._connection.getresponse()
            return answer.status, json.loads(answer.read())
        except BaseException:
            self._connection.close()
            self._connection = None
            raise

    def _answered(self) -> None:
        self._last_answer = time.monotonic()
        if self._told is not None:
            log.info("twin=%s answers again", self._twin)
            self._told = None

    def _silent(self, problem: Exception) -> None:
        now = time.monotonic()
        if now - self._last_answer >= LOST_SECONDS and (self._told is None or now - self._told >= REMIND_SECONDS):
            self._told = now
            log.warning("<4>alarm=twin host=%s what=refusals reason=%s", self._twin, type(problem).__name__)


def contexts() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Return TLS (1.3) of the listener, which wants a twin's certificate, and of who asks."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(KEYS / "server.crt", KEYS / "server.key")
    server.load_verify_locations(KEYS / "clients.crt")
    server.verify_mode = ssl.CERT_REQUIRED
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.load_cert_chain(KEYS / "client.crt", KEYS / "client.key")
    client.load_verify_locations(KEYS / "servers.crt")
    for each in (server, client):
        each.minimum_version = ssl.TLSVersion.TLSv1_3
    return server, client


def main() -> int:
    """Serve and tell until the settings name no twin any more."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--address", required=True, help="where to listen")
    parser.add_argument("--port", type=int, required=True, help="where all of them listen")
    given = parser.parse_args()
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(message)s")
    settings = Settings.from_file(SETTINGS)
    server, client = contexts()
    listener = Listener(given.address, given.port, server, frozenset(settings.peers), Refusals(settings))
    for name in settings.peers:
        Twin(name, given.port, client, Refusals(settings)).start()
    threading.Thread(target=listener.serve_forever, name="listener", daemon=True).start()
    while Settings.from_file(SETTINGS).peers:
        time.sleep(60)
    return 0


if __name__ == "__main__":
    sys.exit(main())
