"""How gunicorn's threads serve the issuer's connections: none without end, and for no address more than its share.

gunicorn's own worker waits for ever for a handshake, a header and a body, each in a thread of its own, and for the first octet without one;
and a connection that is reset before its turn ends the worker with all its questions.
"""

import errno
import logging
import sys
import time
from typing import Any

from gunicorn import http, sock
from gunicorn.workers.gthread import TConn, ThreadWorker
from ticket_connections import Bounded, Shares, plain_address, reset

log = logging.getLogger("ticket_issuer")

SECONDS = {"handshake": 10.0, "header": 10.0, "body": 10.0}
MOST_PER_ADDRESS = 256
"""The configuration file sets both."""


class Worker(ThreadWorker):  # type: ignore[misc,unused-ignore]
    """A thread a connection from its first moment, with deadlines and shares."""

    def init_process(self) -> None:
        """Read certificates and keys once, not for each connection."""
        # gunicorn counts connections in several threads without a lock; ours are bounded by shares.
        self.worker_connections = sys.maxsize
        self.shares = Shares(MOST_PER_ADDRESS)
        self.tls = sock.ssl_context(self.cfg)
        self.tls.sslsocket_class = Bounded
        super().init_process()

    def accept(self, server: Any, listener: Any) -> None:
        """Take a connection, or end it at once if its address has its share."""
        try:
            connection, client = listener.accept()
        except OSError as problem:
            if problem.errno in {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}:
                log.warning("<4>alarm=connections reason=%s", errno.errorcode[problem.errno])
                time.sleep(0.1)
            return
        address = plain_address(client[0])
        taken, report = self.shares.take(address)
        if not taken:
            reset(connection)
            if report:
                log.warning("<4>alarm=connections limit=%d address=%s", MOST_PER_ADDRESS, address)
            return
        conn = TConn(self.cfg, connection, client, server)
        self.nr_conns += 1
        self._wrap_future(self.tpool.submit(self.handle, conn), conn)

    def handle(self, conn: Any) -> Any:
        """Serve a connection, in a thread."""
        try:
            conn.sock.setblocking(True)
            conn.sock = self.tls.wrap_socket(conn.sock, server_side=True, suppress_ragged_eofs=True, do_handshake_on_connect=False)
            conn.sock.handshake_within(SECONDS["handshake"])
            conn.initialized = True
            conn.parser = http.RequestParser(self.cfg, conn.sock, conn.client)
        except OSError:
            return False, conn
        conn.sock.within(SECONDS["header"])
        return super().handle(conn)

    def handle_request(self, req: Any, conn: Any) -> Any:
        """Have a question answered whose header is there."""
        conn.sock.within(SECONDS["body"])
        return super().handle_request(req, conn)

    def finish_request(self, fs: Any) -> None:
        """Close a connection that was served."""
        self.shares.give_back(plain_address(fs.conn.client[0]))
        super().finish_request(fs)
