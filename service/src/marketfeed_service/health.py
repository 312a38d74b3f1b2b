"""The HTTP server of a service: /metrics, /livez, /readyz, /status.

It runs in its own threads, so that it responds while the service is busy or blocked. `livez` therefore reports whether
the service makes progress, not only whether the port is open.
"""

import logging
import socket
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from socketserver import ThreadingMixIn
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from prometheus_client import CollectorRegistry, make_wsgi_app

from marketfeed_service.errors import StartupError
from marketfeed_service.listening import listen

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIEnvironment

log = logging.getLogger(__name__)

_STOP_CHECK_SECONDS: Final = 0.05
"""How often the server checks whether it is to stop; kept short, as the service's drain needs the time."""
_JOIN_SECONDS: Final = 2.0


class ProbeResult(NamedTuple):
    """The result of a probe, with the reason of a failure in one sentence."""

    ok: bool
    reason: str = ""


class Health(Protocol):
    """The health of a service. Called from the health server's threads: methods must return at once and do no I/O.

    The service runs concurrently: copy a collection that it changes (``list(d.items())`` is atomic) before iterating
    over it. An exception becomes a response 500 and a log entry.
    """

    def livez(self) -> ProbeResult:
        """Return whether the process makes progress; if not, it should be restarted."""

    def readyz(self) -> ProbeResult:
        """Return whether the service is ready."""

    def status(self) -> bytes:
        """Return the service's status as JSON."""


class HealthServer:
    """Serves a service's health and metrics until the ``with`` block ends.

    Attributes:
        port: the listening port, once entered.

    Raises (on entering):
        StartupError: listening on METRICS_HOST and METRICS_PORT failed.
    """

    def __init__(self, health: Health, registry: CollectorRegistry, *, host: str, port: int) -> None:
        self.port = port
        self._host = host
        self._app = _app(health, registry)

    def __enter__(self) -> "HealthServer":
        # Bound here and not in the thread, so that a failure is raised to the caller.
        listening = _listen(self._host, self.port)
        self.port = int(listening.getsockname()[1])
        self._server = _Server(listening)
        self._server.set_app(self._app)
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(_STOP_CHECK_SECONDS,), name="health", daemon=True
        )
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        # Bounded, and responses in progress are not waited for: a hanging probe must not keep the process from ending.
        # `shutdown` itself waits without a limit for the serving thread.
        threading.Thread(target=self._server.shutdown, name="health stop", daemon=True).start()
        self._thread.join(_JOIN_SECONDS)
        self._server.server_close()

    def write_port(self, file: str) -> None:
        """Write the port to `file`, for a parent process that chose port 0; do nothing if `file` is empty.

        Raises:
            StartupError: METRICS_PORT_FILE cannot be written.
        """
        if not file:
            return
        temporary = Path(f"{file}.new")
        try:
            temporary.write_text(f"{self.port}\n")
            temporary.replace(file)
        except OSError as error:
            raise StartupError(f"METRICS_PORT_FILE={file!r} cannot be written: {error.strerror}") from error


class _Server(ThreadingMixIn, WSGIServer):
    """A WSGI server on a socket that listens already; a thread for each connection."""

    daemon_threads = True

    def __init__(self, listening: socket.socket) -> None:
        address = listening.getsockname()
        super().__init__(address[:2], _Handler, bind_and_activate=False)
        self.socket.close()
        self.socket = listening
        self.server_address = address
        self.server_name, self.server_port = address[:2]
        self.setup_environ()


class _Handler(WSGIRequestHandler):
    timeout = 10.0  # of a connection that sends nothing

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class names it so
        """Log no requests: probes and scrapes come every few seconds."""


def _app(
    health: Health, registry: CollectorRegistry
) -> Callable[["WSGIEnvironment", "StartResponse"], Iterable[bytes]]:
    metrics = make_wsgi_app(registry)
    probes = {"/livez": health.livez, "/readyz": health.readyz}

    def respond(environ: "WSGIEnvironment", start: "StartResponse") -> Iterable[bytes]:
        path, method = environ["PATH_INFO"], environ["REQUEST_METHOD"]
        kind = "text/plain; charset=utf-8"
        if path not in (*probes, "/status", "/metrics"):
            status, body = "404 Not Found", b"not found: /livez, /readyz, /status, /metrics\n"
        elif method not in ("GET", "HEAD"):
            status, body = "405 Method Not Allowed", b"use GET\n"
        else:
            try:
                if path == "/metrics":
                    response: Iterable[bytes] = metrics({**environ, "REQUEST_METHOD": "GET"}, start)
                    return response if method == "GET" else []
                if path == "/status":
                    status, body, kind = "200 OK", health.status(), "application/json; charset=utf-8"
                else:
                    result = probes[path]()
                    status = "200 OK" if result.ok else "503 Service Unavailable"
                    body = b"ok\n" if result.ok else f"{result.reason}\n".encode()
            except Exception:  # the rim of the service: it is logged with its traceback and is the response
                log.exception("health request failed: %s", path)
                status, body = "500 Internal Server Error", b"internal error, see the log\n"
        start(status, [("Content-Type", kind), ("Content-Length", str(len(body)))])
        return [body] if method != "HEAD" else []

    return respond


def _listen(host: str, port: int) -> socket.socket:
    try:
        return listen(host, port)
    except OSError as error:
        raise StartupError(
            f"cannot listen on METRICS_HOST={host!r} METRICS_PORT={port}: {error.strerror}; "
            "choose another address; METRICS_PORT=0 selects a free port"
        ) from error
