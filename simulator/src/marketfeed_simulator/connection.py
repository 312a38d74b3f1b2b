"""WebSocket server: handshake, requests and replies, pings, and how a connection ends."""

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from itertools import count
from typing import Any, Final

import msgspec
from aiohttp import WSMsgType, web

from marketfeed_service import logs
from marketfeed_simulator.faults import Refuse
from marketfeed_simulator.frames import COMBINED, MICROSECONDS, combine, ping_frame, pong_frame, text_frame
from marketfeed_simulator.hub import Hub, Outlet
from marketfeed_simulator.keepalive import Due, Keepalive
from marketfeed_simulator.limits import SlidingLimit
from marketfeed_simulator.protocol import Session, streams_of
from marketfeed_simulator.request_faults import RequestFaults
from marketfeed_simulator.venue import Venue

_CLOSE_SECONDS: Final = 2.0
"""Timeout of the closing handshake; the socket is reset afterwards."""

log = logs.get(__name__)


class ServerConnection:
    """One client's WebSocket connection.

    Attributes:
        number: id in /control/connections.
        ended_by: why the connection ended; "" while it is open.
    """

    def __init__(
        self, number: int, request: web.Request, ws: web.WebSocketResponse, hub: Hub, venue: Venue, session: Session,
        variant: int, server_us: Callable[[], int],
    ) -> None:  # fmt: skip
        if request.transport is None:
            raise ConnectionResetError("connection closed during the handshake")
        self.number = number
        self.transport = request.transport
        self.address = request.remote or ""
        self.session = session
        self.outlet = Outlet(number, self.transport, variant, request.writer.drain)
        self.ended_by = ""
        self._ws = ws
        self._hub = hub
        self._server_us = server_us
        self._rate = SlidingLimit(venue.messages_per_second, 1.0)
        self._keepalive = Keepalive(venue, time.monotonic())
        self._echo = venue.echo_required
        self._frozen = False
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Serve the client until the connection ends."""
        hub, outlet = self._hub, self.outlet
        hub.attach(outlet)
        hub.subscribe(outlet, list(self.session.streams))
        self._spawn(self._keep_alive())
        try:
            while await self._receive():
                pass
        finally:
            self.ended_by = self.ended_by or "client"
            hub.detach(outlet)
            for task in self._tasks:
                if task is not asyncio.current_task():
                    task.cancel()

    async def _receive(self) -> bool:
        message = await self._ws.receive()
        if message.type in (WSMsgType.CLOSE, WSMsgType.CLOSING, WSMsgType.CLOSED, WSMsgType.ERROR):
            return False
        if not self._rate.allows(time.monotonic()):
            await self.close(1008, "Too many requests", "too many messages")
            return False
        if message.type is WSMsgType.PING:
            self.outlet.send(pong_frame(message.data))
        elif message.type is WSMsgType.PONG:
            self._keepalive.ponged(bytes(message.data))
        else:
            self._request(message.data if isinstance(message.data, str) else "")
        return True

    def _request(self, text: str) -> None:
        outcome = self.session.handle(text)
        log.debug("request", connection=self.number, text=text[:200], reply=outcome.reply[:200].decode())
        # The reply is sent first: data of a stream begins after the reply to its SUBSCRIBE.
        self.outlet.send(text_frame(outcome.reply))
        self.outlet.variant = self.outlet.variant & MICROSECONDS | (COMBINED if self.session.combined else 0)
        self._hub.subscribe(self.outlet, outcome.added)
        self._hub.unsubscribe(self.outlet, outcome.removed)

    async def _keep_alive(self) -> None:
        while not self._frozen:
            now = time.monotonic()
            while (due := self._keepalive.due(now)) is not None:
                match due:
                    case Due.PING:
                        payload = str(self._server_us() // 1000).encode() if self._echo else b""
                        self.outlet.send(ping_frame(payload))
                        self._keepalive.pinged(payload, now)
                    case Due.NOTICE:
                        self.notify_shutdown()
                    case Due.NO_PONG:
                        await self.close(1008, "Pong timeout", "no pong")
                        return
                    case Due.END_OF_LIFE:
                        await self.close(1001, "", "end of life")
                        return
            await asyncio.sleep(max(0.01, self._keepalive.next_at() - now))

    def notify_shutdown(self) -> None:
        """Send the serverShutdown event, raw or combined as the connection is."""
        data = b'{"e":"serverShutdown","E":%d}' % (self._server_us() // 1000)
        self.outlet.send(text_frame(combine("!serverShutdown", data) if self.session.combined else data))

    def stall(self) -> None:
        """Stop sending market data; pings and replies continue."""
        self._hub.pause(self.outlet)

    def unstall(self) -> None:
        """Resume sending market data."""
        if not self.ended_by:
            self._hub.resume(self.outlet)

    def freeze(self) -> None:
        """Stop reading and writing without closing the connection."""
        self._hub.pause(self.outlet)
        self._frozen = True
        self.ended_by = "half open"
        with contextlib.suppress(RuntimeError):  # the transport is closing already
            self.transport.pause_reading()

    def cut(self, why: str, *, reset: bool) -> None:
        """Close the TCP connection without a close frame; `reset` discards unsent data."""
        self._hub.pause(self.outlet)
        self.ended_by = why
        if reset:
            self.transport.abort()
        else:
            self.transport.close()

    def close_soon(self, code: int, reason: str, why: str, after_seconds: float = 0) -> None:
        """Schedule a close by the venue and return at once."""
        self._spawn(self._close_after(code, reason, why, after_seconds))

    async def _close_after(self, code: int, reason: str, why: str, after_seconds: float) -> None:
        await asyncio.sleep(after_seconds)
        await self.close(code, reason, why)

    async def close(self, code: int, reason: str, why: str) -> None:
        """Send a close frame and end the connection; reset it when the client does not reply in time."""
        if self.ended_by:
            return
        self._hub.pause(self.outlet)
        self.ended_by = why
        try:
            async with asyncio.timeout(_CLOSE_SECONDS):
                await self._ws.close(code=code, message=reason.encode())
        except (TimeoutError, ConnectionError):
            self.transport.abort()

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


class ConnectionCounts(msgspec.Struct):
    """Number of connections since the start; `ended` is by reason."""

    accepted: int = 0
    refused: int = 0
    ended: Counter[str] = msgspec.field(default_factory=Counter)


class WebSocketServer:
    """Accepts connections and lists the open ones."""

    def __init__(
        self, hub: Hub, venue: Venue, request_faults: RequestFaults, server_us: Callable[[], int]
    ) -> None:
        self.connections: dict[int, ServerConnection] = {}
        self.counts = ConnectionCounts()
        self._hub = hub
        self._venue = venue
        self._request_faults = request_faults
        self._server_us = server_us
        self._numbers = count(1)
        self._attempts: dict[str, SlidingLimit] = {}

    async def raw(self, request: web.Request) -> web.StreamResponse:
        """Handle GET /ws and /ws/<stream>/<stream>…"""
        return await self._serve(
            request, combined=False, streams=streams_of(request.match_info.get("streams", ""))
        )

    async def combined(self, request: web.Request) -> web.StreamResponse:
        """Handle GET /stream and /stream?streams=…"""
        return await self._serve(request, combined=True, streams=streams_of(request.query.get("streams", "")))

    async def _serve(self, request: web.Request, *, combined: bool, streams: list[str]) -> web.StreamResponse:
        fault = self._request_faults.refusal()
        if fault is not None and fault.delay_seconds:
            await asyncio.sleep(fault.delay_seconds)
        refusal = self._refusal(request, streams, fault)
        if refusal is not None:
            self.counts.refused += 1
            return refusal
        variant = COMBINED if combined else 0
        if self._gives_microseconds() and request.query.get("timeUnit", "").upper() == "MICROSECOND":
            variant |= MICROSECONDS
        ws = web.WebSocketResponse(autoping=False, compress=False, timeout=_CLOSE_SECONDS)
        await ws.prepare(request)
        session = Session(self._venue, combined=combined, streams=streams)
        connection = ServerConnection(
            next(self._numbers), request, ws, self._hub, self._venue, session, variant, self._server_us
        )
        self.counts.accepted += 1
        self.connections[connection.number] = connection
        log.info("connected", connection=connection.number, address=connection.address, streams=len(streams))
        try:
            await connection.run()
        finally:
            del self.connections[connection.number]
            self.counts.ended[connection.ended_by] += 1
            log.info("disconnected", connection=connection.number, by=connection.ended_by)
        return ws

    def _gives_microseconds(self) -> bool:
        return self._venue.microseconds and not self._request_faults.milliseconds_only

    def _refusal(self, request: web.Request, streams: list[str], fault: Refuse | None) -> web.Response | None:
        if fault is not None:
            headers = {"Retry-After": str(fault.retry_after_seconds)} if fault.retry_after_seconds else {}
            return web.Response(status=fault.status, text=refusal_text(fault.status), headers=headers)
        limit = self._attempts.setdefault(
            request.remote or "", SlidingLimit(self._venue.attempts, self._venue.attempts_window_seconds)
        )
        if not limit.allows(time.monotonic()):
            return web.json_response({"code": -1034, "msg": "Too many connection attempts."}, status=429)
        if len(streams) > self._venue.streams_per_connection:
            most = self._venue.streams_per_connection
            return web.json_response(
                {"code": 4, "msg": f"Too many subscriptions: at most {most}"}, status=400
            )
        return None

    async def stop(self) -> None:
        """Close every connection with 1001 and wait for it."""
        await asyncio.gather(
            *(
                connection.close(1001, "", "simulator stopped")
                for connection in list(self.connections.values())
            )
        )
        for connection in list(self.connections.values()):
            connection.transport.abort()


def refusal_text(status: int) -> str:
    """Return the body of a rejected handshake."""
    if status == 451:
        return (
            '{"code":0,"msg":"Service unavailable from a restricted location according to \'b. Eligibility\' '
            'in the terms of use."}'
        )
    return f'{{"code":-1000,"msg":"refused with {status}"}}'
