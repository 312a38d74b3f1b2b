"""The simulated venue: connects the parts and serves them on one port."""

import asyncio
import contextlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from aiohttp import web

from marketfeed_service import logs
from marketfeed_service.errors import ServiceError, SettingsError, StartupError
from marketfeed_service.listening import listen
from marketfeed_simulator.connection import WebSocketServer
from marketfeed_simulator.control import Control
from marketfeed_simulator.driver import Driver
from marketfeed_simulator.fault_effects import Parts
from marketfeed_simulator.fault_injector import FaultInjector
from marketfeed_simulator.faults import AnyFault
from marketfeed_simulator.hub import Hub
from marketfeed_simulator.instruments import Instrument
from marketfeed_simulator.ledger import Exchange
from marketfeed_simulator.limits import RequestLimits
from marketfeed_simulator.market import GeneratedMarket
from marketfeed_simulator.request_faults import RequestFaults
from marketfeed_simulator.rest import RestServer
from marketfeed_simulator.rest_api import RestApi
from marketfeed_simulator.source import Source
from marketfeed_simulator.venue import Venue

log = logs.get(__name__)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Configuration of a simulator.

    `speed` None is as fast as the slowest reader; `keep_trades` 0 keeps all; `recorded_info` holds exchangeInfo entries
    of listed symbols without a market.
    """

    venue: Venue
    source: Source
    instruments: dict[str, Instrument]
    speed: float | None
    wait: bool
    keep_trades: int
    most_buffered_bytes: int
    recorded_info: dict[str, dict[str, Any]]
    scenario: Iterable[AnyFault] = ()


class Simulator:
    """A venue that serves inside an ``async with``.

    Attributes:
        port: the bound port, once entered.

    Raises (on entering):
        StartupError: the port cannot be bound.
        SettingsError: the scenario has a fault that is not possible with this market.
    """

    def __init__(self, plan: Plan, *, host: str, port: int) -> None:
        self.port = port
        self._plan = plan
        self._host = host
        self._exchange = Exchange(plan.keep_trades)
        self._hub = Hub(self._exchange)
        self._driver = Driver(
            self._hub,
            plan.source,
            speed=plan.speed,
            wait=plan.wait,
            most_buffered_bytes=plan.most_buffered_bytes,
        )
        self._request_faults = RequestFaults()
        self._limits = RequestLimits(plan.venue)
        server_us = self._driver.server_us
        self._sockets = WebSocketServer(self._hub, plan.venue, self._request_faults, server_us)
        exchange = self._exchange
        api = RestApi(plan.venue, plan.instruments, exchange.histories, exchange.quotes, plan.recorded_info)
        self._rest = RestServer(api, self._limits, self._request_faults, server_us)
        self._runner: web.AppRunner | None = None
        self._running: asyncio.Task[None] | None = None

    async def __aenter__(self) -> "Simulator":
        desk = self._desk()
        for fault in self._plan.scenario:
            try:
                desk.set(fault)
            except ValueError as error:
                raise SettingsError(f"scenario: {error}") from error
        self._runner = web.AppRunner(self._application(desk), access_log=None, shutdown_timeout=1)
        await self._runner.setup()
        try:
            await web.SockSite(self._runner, listen(self._host, self.port)).start()
        except OSError as error:
            await self._runner.cleanup()
            raise StartupError(
                f"cannot listen on {self._host}:{self.port}: {error.strerror or error}"
            ) from error
        self.port = int(self._runner.addresses[0][1])
        self._running = asyncio.create_task(self._driver.run(), name="market")
        log.info("listening", host=self._host, port=self.port, venue=self._plan.venue.name)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._running is not None:
            self._running.cancel()
            with contextlib.suppress(asyncio.CancelledError, ServiceError):
                await self._running
        await self._sockets.stop()
        if self._runner is not None:
            await self._runner.cleanup()

    async def market_ended(self) -> None:
        """Return when the market has sent its last frame; raise its error."""
        if self._running is not None:
            await asyncio.shield(self._running)

    def write_port(self, file: str) -> None:
        """Write the bound port to `file`, unless that is empty.

        Raises:
            SettingsError: the file cannot be written.
        """
        if file:
            try:
                temporary = Path(f"{file}.new")
                temporary.write_text(f"{self.port}\n")
                temporary.replace(file)
            except OSError as error:
                raise SettingsError(
                    f"--port-file {file} cannot be written: {error.strerror or error}"
                ) from error

    def ledger(self) -> dict[str, Any]:
        """Return the body of /control/ledger."""
        plan, driver, sockets = self._plan, self._driver, self._sockets
        requests: dict[str, dict[str, int]] = {}
        for (endpoint, status), number in sorted(self._rest.requests.items()):
            requests.setdefault(endpoint, {})[str(status)] = number
        return {
            "venue": plan.venue.name,
            "source": "generate" if isinstance(plan.source, GeneratedMarket) else "replay",
            "speed": plan.speed or "max",
            "state": driver.state,
            "finished": driver.finished,
            "market_time_us": driver.market_us(),
            "frames": self._hub.frames,
            "symbols": {name: entry for name, entry in self._exchange.symbols.items() if name},
            "delivered": self._hub.delivered,
            "connections": {"open": len(sockets.connections), **msgspec.to_builtins(sockets.counts)},
            "requests": requests,
        }

    def _desk(self) -> FaultInjector:
        source = self._plan.source
        return FaultInjector(
            Parts(
                hub=self._hub,
                driver=self._driver,
                sockets=self._sockets,
                request_faults=self._request_faults,
                limits=self._limits,
                instruments=self._plan.instruments,
                market=source if isinstance(source, GeneratedMarket) else None,
                replay=None if isinstance(source, GeneratedMarket) else self._driver,
            )
        )

    def _application(self, desk: FaultInjector) -> web.Application:
        application = web.Application()
        application.add_routes(
            [
                web.get("/ws", self._sockets.raw),
                web.get("/ws/{streams:.*}", self._sockets.raw),
                web.get("/stream", self._sockets.combined),
                web.get("/api/v3/{endpoint:.+}", self._rest.handle),
                *Control(self.ledger, self._sockets, desk).routes(),
            ]
        )
        return application
