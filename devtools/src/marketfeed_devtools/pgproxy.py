"""A proxy for PostgreSQL that injects the failures of CockroachDB and of networks.

It parses the frontend/backend protocol (https://www.postgresql.org/docs/current/protocol-message-formats.html) as far
as needed to detect statements and to replace the server's responses.
"""

import select
import socket
import struct
import threading
from collections import deque
from contextlib import suppress
from enum import Enum, auto


class Fault(Enum):
    """A failure of a statement."""

    REFUSED = auto()
    """The statement does not reach the server, its transaction is rolled back, and the response is an error."""
    DONE_BUT_ERROR = auto()
    """The server runs the statement, but the response is an error: with 40003, an unknown result."""
    CUT_BEFORE = auto()
    """The connection is cut before the server receives the statement."""
    CUT_AFTER = auto()
    """The connection is cut after the server has run the statement and before its response arrives."""


class Proxy:
    """A proxy on a free port that forwards to the server's socket and injects the planned faults.

    `plan(statement, fault, sqlstate)` adds a fault for the next statement with that beginning.
    """

    def __init__(self, server_socket: str) -> None:
        self._server = server_socket
        self._faults: deque[tuple[bytes, Fault, str]] = deque()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._threads: list[threading.Thread] = []
        self._links: list[socket.socket] = []
        self._frozen = False
        self._accepting = threading.Thread(target=self._accept, daemon=True)
        self._accepting.start()

    @property
    def address(self) -> tuple[str, int]:
        """Return the listening host and port."""
        host, port = self._listener.getsockname()[:2]
        return host, port

    def plan(self, statement: str, fault: Fault, sqlstate: str = "") -> None:
        """Add a fault for the next statement that begins with `statement`.

        Args:
            statement: beginning of the statement.
            fault: the failure.
            sqlstate: SQLSTATE of the error response, if the fault has one.
        """
        self._faults.append((statement.encode(), fault, sqlstate))

    def forget(self) -> None:
        """Remove all planned faults."""
        self._faults.clear()

    def freeze(self) -> None:
        """Accept new connections and never respond on them."""
        self._frozen = True

    @property
    def pending(self) -> int:
        """Return the number of faults that have not been injected yet."""
        return len(self._faults)

    def close(self) -> None:
        """Stop listening and close every connection."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._accepting.join(5)
        for link in self._links:
            with suppress(OSError):
                link.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(5)
        for link in self._links:
            link.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if self._frozen:
                self._links.append(client)
                continue
            server = socket.socket(socket.AF_UNIX)
            server.connect(self._server)
            self._links += [client, server]
            thread = threading.Thread(target=self._serve, args=(client, server), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, client: socket.socket, server: socket.socket) -> None:
        with suppress(OSError):
            length = _exactly(client, 4)
            server.sendall(length + _exactly(client, struct.unpack("!I", length)[0] - 4))
            while True:
                readable, _, _ = select.select([client, server], [], [])
                if server in readable:
                    data = server.recv(65536)
                    if not data:
                        break
                    client.sendall(data)
                if client in readable and not self._pass_on(client, server):
                    break
        for link in (client, server):
            with suppress(OSError):
                link.shutdown(socket.SHUT_RDWR)

    def _pass_on(self, client: socket.socket, server: socket.socket) -> bool:
        """Forward one message of the client; return whether the connection stays open."""
        header = _exactly(client, 5)
        kind, length = header[:1], struct.unpack("!I", header[1:])[0]
        body = _exactly(client, length - 4)
        statement = body if kind == b"Q" else body.partition(b"\x00")[2] if kind == b"P" else b""
        fault = self._fault_for(statement.lstrip())
        if fault is None:
            server.sendall(header + body)
            return True
        what, sqlstate = fault
        if what is Fault.CUT_BEFORE:
            return False
        if what is Fault.REFUSED:
            if kind == b"P":
                _swallow_until_sync(client)
            _ask(server, b"ROLLBACK")
        else:
            server.sendall(header + body)
            _answer(server)
        if what is Fault.CUT_AFTER:
            return False
        client.sendall(_error(sqlstate) + b"Z" + struct.pack("!I", 5) + b"I")
        return True

    def _fault_for(self, statement: bytes) -> tuple[Fault, str] | None:
        if self._faults and statement.startswith(self._faults[0][0]):
            _, fault, sqlstate = self._faults.popleft()
            return fault, sqlstate
        return None


def _exactly(source: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        piece = source.recv(size - len(data))
        if not piece:
            raise OSError("closed")
        data += piece
    return data


def _message(source: socket.socket) -> tuple[bytes, bytes]:
    header = _exactly(source, 5)
    return header[:1], _exactly(source, struct.unpack("!I", header[1:])[0] - 4)


def _answer(server: socket.socket) -> None:
    while _message(server)[0] != b"Z":
        pass


def _ask(server: socket.socket, statement: bytes) -> None:
    server.sendall(b"Q" + struct.pack("!I", len(statement) + 5) + statement + b"\x00")
    _answer(server)


def _swallow_until_sync(client: socket.socket) -> None:
    while _message(client)[0] != b"S":
        pass


def _error(sqlstate: str) -> bytes:
    body = b"SERROR\x00VERROR\x00C" + sqlstate.encode() + b"\x00Mmade by the proxy\x00\x00"
    return b"E" + struct.pack("!I", len(body) + 4) + body
