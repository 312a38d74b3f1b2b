"""The HTTP server of a service: /metrics, /livez, /readyz, /status.

It runs in its own thread and event loop, so that it responds while the service is busy or blocked. `livez` therefore
reports whether the service makes progress, not only whether the port is open.
"""

import asyncio
import contextlib
import socket
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final, NamedTuple, Protocol

from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from marketfeed_chassis.errors import StartupError
from marketfeed_chassis.listening import listen

SHUTDOWN_SECONDS: Final = 1.0
"""How long a stop waits for responses in progress; kept short, as the service's drain needs the time."""


class Verdict(NamedTuple):
    """The result of a probe, with the reason of a failure in one sentence."""

    ok: bool
    reason: str = ""


class Health(Protocol):
    """The health of a service. Called from the health server's thread: methods must return at once and do no I/O.

    The service runs concurrently: copy a collection that it changes (``list(d.items())`` is atomic) before iterating
    over it. An exception becomes a response 500 and a log entry.
    """

    def livez(self) -> Verdict:
        """Return whether the process makes progress; if not, it should be restarted."""

    def readyz(self) -> Verdict:
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
        self._health = health
        self._registry = registry
        self._started = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop = asyncio.Event()

    def __enter__(self) -> "HealthServer":
        # Bound here and not in the thread, so that a failure is raised to the caller.
        listening = _listen(self._host, self.port)
        self.port = int(listening.getsockname()[1])
        self._thread = threading.Thread(target=self._run, args=(listening,), name="health", daemon=True)
        self._thread.start()
        self._started.wait()
        return self

    def __exit__(self, *_: object) -> None:
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop has ended already
                self._loop.call_soon_threadsafe(self._stop.set)
        # Bounded: a probe that hangs must not keep the process from ending.
        self._thread.join(2 * SHUTDOWN_SECONDS)

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

    def _run(self, listening: socket.socket) -> None:
        try:
            with listening:
                asyncio.run(self._serve(listening))
        finally:
            self._started.set()

    async def _serve(self, listening: socket.socket) -> None:
        app = web.Application()
        app.router.add_get("/livez", self._probe(self._health.livez))
        app.router.add_get("/readyz", self._probe(self._health.readyz))
        app.router.add_get("/status", self._status)
        app.router.add_get("/metrics", self._metrics)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=SHUTDOWN_SECONDS)
        await runner.setup()
        try:
            await web.SockSite(runner, listening).start()
            self._loop = asyncio.get_running_loop()
            self._started.set()
            await self._stop.wait()
        finally:
            await runner.cleanup()

    @staticmethod
    def _probe(ask: Callable[[], Verdict]) -> Callable[[web.Request], Awaitable[web.Response]]:
        async def answer(_: web.Request) -> web.Response:
            verdict = ask()
            return web.Response(
                text="ok\n" if verdict.ok else f"{verdict.reason}\n", status=200 if verdict.ok else 503
            )

        return answer

    async def _status(self, _: web.Request) -> web.Response:
        return web.Response(body=self._health.status(), content_type="application/json")

    async def _metrics(self, _: web.Request) -> web.Response:
        return web.Response(
            body=generate_latest(self._registry), headers={"Content-Type": CONTENT_TYPE_LATEST}
        )


def _listen(host: str, port: int) -> socket.socket:
    try:
        return listen(host, port)
    except OSError as error:
        raise StartupError(
            f"cannot listen on METRICS_HOST={host!r} METRICS_PORT={port}: {error.strerror}; "
            "choose another address; METRICS_PORT=0 selects a free port"
        ) from error
