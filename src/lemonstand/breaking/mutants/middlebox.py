"""A box in the way of mail, as RFC 5383 section 6 warns of: it ends clients' connections, looks into them and changes what it should pass.

Runs on a lab's frontend as root, from standard input's copy, on the standard library; it redirects ports 143 and 587 to itself, tells
systemd when it is ready, and takes its rules away when it ends. Faults are chosen by options; without any it passes everything on.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import select
import signal
import socket
import ssl
import subprocess
import sys
import threading

PORTS = {143: 11430, 587: 15870}
CERTIFICATE, KEY = "/etc/lemonstand/pki/public.crt", "/etc/lemonstand/pki/public.key"
RULES = """table inet middlebox {{
  chain take {{
    type nat hook prerouting priority -90; policy accept;
    tcp dport 143 redirect to :{0}
    tcp dport 587 redirect to :{1}
  }}
}}
insert rule inet lemonstand input ct status dnat accept
"""
IP_RECVERR, IPV6_RECVERR = 11, 25


class Box:
    """What is done to connections.

    Args:
        options: the command line's.
    """

    def __init__(self, options: argparse.Namespace) -> None:
        self.hidden = options.hide.split(",") if options.hide else []
        words = b"|".join(re.escape(word.encode()) for word in self.hidden) or b"(?!)"
        self.words = re.compile(rb"(?:(?<=^250-)|(?<![A-Z0-9=+-]))(?:" + words + rb")(?![A-Z0-9=+-])")
        pairs = [rule.partition("=>") for rule in options.rewrite]
        self.rewrites = [(re.compile(old.encode()), new.encode()) for old, _, new in pairs]
        self.refused = options.refuse.upper().encode() if options.refuse else b""
        self.silence = options.silence or None
        self.single, self.keep_early, self.all_errors = options.one_at_a_time, options.keep_early, options.all_errors
        self.outside = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self.outside.load_cert_chain(CERTIFICATE, KEY)
        self.inside = ssl._create_unverified_context()  # noqa: S323 - it is the same host

    def to_client(self, line: bytes) -> bytes:
        """A line of the server's as the client gets it."""
        if line.startswith(b"250") or b"CAPABILITY" in line:
            line = self.words.sub(lambda found: b"X" * len(found.group()), line)
        for old, new in self.rewrites:
            line = old.sub(new, line)
        return line

    def to_server(self, data: bytes, client: socket.socket) -> bytes:
        """What of a segment of the client's the server gets; the box answers the rest itself."""
        if self.refused and data.upper().startswith(self.refused):
            client.sendall(b"500 5.5.1 unknown command\r\n")
            return b""
        if self.single and data.count(b"\r\n") > 1:
            first, _, rest = data.partition(b"\r\n")
            client.sendall(b"503 5.5.0 one command at a time\r\n" * rest.count(b"\r\n"))
            return first + b"\r\n"
        return data

    def serve(self, client: socket.socket, port: int) -> None:
        """One connection from its beginning to its end."""
        with contextlib.suppress(OSError, ssl.SSLError, ValueError), client:
            if self.all_errors:
                client.setsockopt(socket.IPPROTO_IP, IP_RECVERR, 1)
                if client.family == socket.AF_INET6:
                    client.setsockopt(socket.IPPROTO_IPV6, IPV6_RECVERR, 1)
            here, there = client.getsockname()[0], client.getpeername()[0]
            with socket.create_connection((here, port), source_address=(another(here, there), 0)) as server:
                self._plain(client, server)

    def _plain(self, client: socket.socket, server: socket.socket) -> None:
        held = b""
        while True:
            waiting = select.select([client, server], [], [], self.silence)[0]
            if not waiting:
                return
            for ready in waiting:
                data = ready.recv(65536)
                if not data:
                    return
                if ready is server:
                    held = self._forward(client, held + data)
                    continue
                found = re.search(rb"(?im)^(?:\S+ )?STARTTLS\r\n", data)
                if not found:
                    server.sendall(self.to_server(data, client))
                    continue
                server.sendall(data[: found.end()])
                client.sendall(self.to_client(server.recv(65536)))
                early = data[found.end() :] if self.keep_early else b""
                self._encrypted(self.outside.wrap_socket(client, server_side=True), self.inside.wrap_socket(server), early)
                return

    def _encrypted(self, client: ssl.SSLSocket, server: ssl.SSLSocket, early: bytes) -> None:
        server.sendall(early)
        held, raw = b"", False
        while True:
            ready = [each for each in (client, server) if each.pending()] or select.select([client, server], [], [], self.silence)[0]
            if not ready:
                return
            for each in ready:
                data = at_hand(each)
                if data is None:
                    continue
                if not data:
                    return
                if each is client:
                    raw = raw or b" COMPRESS " in data.upper()  # what follows its answer has no lines
                    server.sendall(self.to_server(data, client))
                elif raw:
                    client.sendall(held + data)
                    held = b""
                else:
                    held = self._forward(client, held + data)

    def _forward(self, client: socket.socket, data: bytes) -> bytes:
        """Sends whole lines to the client and returns the rest."""
        whole, end, rest = data.rpartition(b"\n")
        if end:
            client.sendall(b"".join(self.to_client(line) for line in (whole + end).splitlines(keepends=True)))
        return rest


def at_hand(end: ssl.SSLSocket) -> bytes | None:
    """What an end has sent; None if it was no more than TLS's own, such as a session ticket: to wait there would deafen the box."""
    end.settimeout(0.0)
    try:
        return end.recv(65536)
    except ssl.SSLWantReadError:
        return None
    finally:
        end.settimeout(None)


def another(here: str, there: str) -> str:
    """Another address of this host, of the same IP version: a connection from the address it leads to counts as safe before TLS."""
    version = "-6" if ":" in here else "-4"
    done = subprocess.run(["ip", "-j", version, "addr", "show", "scope", "global"], capture_output=True, text=True, check=True)
    # ip leaves empty entries for the addresses that it was not asked for
    addresses = [str(each["local"]) for link in json.loads(done.stdout) for each in link["addr_info"] if "local" in each]
    return next(address for address in addresses if address not in {here, there})


def listen(box: Box, family: int, port: int, taken: int) -> None:
    """Takes connections of an IP version that were meant for a port."""
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if family == socket.AF_INET6:
        listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    listener.bind(("", taken))
    listener.listen(64)

    def work() -> None:
        while True:
            client, _ = listener.accept()
            threading.Thread(target=box.serve, args=(client, port), daemon=True).start()

    threading.Thread(target=work, daemon=True).start()


def main() -> int:
    """Runs until it is told to end."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--hide", default="", help="words that are X-ed out of what the server announces, separated by commas")
    parser.add_argument("--rewrite", action="append", default=[], help="OLD=>NEW, on each line of the server's")
    parser.add_argument("--refuse", default="", help="a command that is refused")
    parser.add_argument("--silence", type=float, default=0, help="seconds of silence after which a connection is ended")
    parser.add_argument("--one-at-a-time", action="store_true", help="take one command a segment")
    parser.add_argument("--keep-early", action="store_true", help="pass on behind TLS what came before it")
    parser.add_argument("--all-errors", action="store_true", help="end a connection for any ICMP error")
    box = Box(parser.parse_args())
    for port, taken in PORTS.items():
        for family in (socket.AF_INET, socket.AF_INET6):
            listen(box, family, port, taken)
    subprocess.run(["nft", "-f", "-"], input=RULES.format(*PORTS.values()), text=True, check=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
            notify.connect(os.environ["NOTIFY_SOCKET"].replace("@", "\0", 1))
            notify.send(b"READY=1")
        signal.pause()
    finally:
        for command in (["nft", "delete", "table", "inet", "middlebox"], ["nft", "-f", "/etc/lemonstand/nftables.nft"]):
            # systemd tells a service's processes one after the other to end: one that was started in between is hit as well.
            while subprocess.run(command, check=False).returncode == -signal.SIGTERM:
                pass
    return 0


if __name__ == "__main__":
    sys.exit(main())
