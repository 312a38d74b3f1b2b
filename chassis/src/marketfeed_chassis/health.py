"""The HTTP side of a service: /metrics, /livez, /readyz, /status.

It runs in a thread and event loop of its own, so that it answers while the service is busy or stuck: whether
the service itself moves is then what `livez` tells, not whether a port is open.
"""

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, Protocol

from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest


class Verdict(NamedTuple):
    """An answer to a probe: good or not, and if not, why in one sentence."""

    ok: bool
    reason: str = ""


class Health(Protocol):
    """What a service tells about itself. Called from the health server's thread: answer at once, do no I/O."""

    def livez(self) -> Verdict:
        """Whether the process moves; when it does not, it should be restarted."""

    def readyz(self) -> Verdict:
        """Whether the service does its work now."""

    def status(self) -> bytes:
        """The service's state as JSON."""


class HealthServer:
    """Serves a service's health and metrics until the ``with`` block ends.

    Attributes:
        port: the port taken, once entered.

    Raises (on entering):
        OSError: the port cannot be taken.
    """

    def __init__(self, health: Health, registry: CollectorRegistry, *, host: str, port: int) -> None:
        self.port = port
        self._host = host
        self._health = health
        self._registry = registry
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._started = threading.Event()
        self._error: OSError | None = None
        self._thread = threading.Thread(target=self._run, name="health", daemon=True)

    def __enter__(self) -> "HealthServer":
        self._thread.start()
        self._started.wait()
        if self._error is not None:
            raise self._error
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    def write_port(self, file: str) -> None:
        """Tell the port to whoever started us with port 0; nothing when `file` is empty."""
        if file:
            temporary = Path(f"{file}.new")
            temporary.write_text(f"{self.port}\n")
            temporary.replace(file)

    def _run(self) -> None:
        try:
            self._loop.run_until_complete(self._serve())
        finally:
            self._loop.close()

    async def _serve(self) -> None:
        app = web.Application()
        app.router.add_get("/livez", self._probe(lambda: self._health.livez()))
        app.router.add_get("/readyz", self._probe(lambda: self._health.readyz()))
        app.router.add_get("/status", self._status)
        app.router.add_get("/metrics", self._metrics)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        try:
            site = web.TCPSite(runner, self._host, self.port)
            await site.start()
            self.port = int(runner.addresses[0][1])
        except OSError as error:
            self._error = error
            return
        finally:
            self._started.set()
            if self._error is not None:
                await runner.cleanup()
        await self._stop.wait()
        await runner.cleanup()

    @staticmethod
    def _probe(ask: Callable[[], Verdict]) -> Callable[[web.Request], "asyncio.Future[web.Response]"]:
        async def answer(_: web.Request) -> web.Response:
            verdict = ask()
            return web.Response(text=f"{verdict.reason or 'ok'}\n", status=200 if verdict.ok else 503)

        return answer  # type: ignore[return-value]

    async def _status(self, _: web.Request) -> web.Response:
        return web.Response(body=self._health.status(), content_type="application/json")

    async def _metrics(self, _: web.Request) -> web.Response:
        return web.Response(
            body=generate_latest(self._registry), headers={"Content-Type": CONTENT_TYPE_LATEST}
        )
