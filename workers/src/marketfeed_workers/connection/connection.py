"""A connection for a part of the symbols, and the only reconnect loop.

    waiting ──▶ connecting ──▶ streaming ──▶ (cut, timeout, close) ──▶ waiting …
                    │              └─ rotation: a second session opens and warms up, then the first is closed
                    └─▶ refused: the venue does not serve this address (451, 403); retried every few minutes

The backoff is reset only after data was received: a venue that accepts connections and closes them at once is not
flooded.

Rotation is make-before-break: a new session replaces the one in use only after each of its streams has delivered, or
REST shows that nothing newer exists.
"""

import asyncio
from collections.abc import Iterator
from typing import Final

from marketfeed_service import logs
from marketfeed_wire.status import ConnectionState, ConnectionStatus
from marketfeed_workers.connection.parts import ConnectionParts
from marketfeed_workers.connection.rotation import parse_window, rotation_age
from marketfeed_workers.connection.session import Session
from marketfeed_workers.connection.transports.socket import Closed
from marketfeed_workers.connection.warm_up import WarmUp
from marketfeed_workers.venues.errors import REFUSED_SECONDS, Limited, Refused, Unreachable

log = logs.get(__name__)

PAUSED_CHECK_SECONDS: Final = 1.0


class Connection:
    """Reads the streams of `symbols` into the pipeline until cancelled."""

    def __init__(self, number: int, symbols: list[str], parts: ConnectionParts) -> None:
        self.symbols = list(symbols)
        self._number = number
        self._parts = parts
        self._settings = parts.settings
        self._state: ConnectionState = "connecting"
        self._reason = "not connected yet"
        self._session: Session | None = None
        self._rotation_requested: asyncio.Event = asyncio.Event()
        self._rotation_reason = ""
        self._attempts = 0
        self._retry_after = 0.0  # monotonic time before which no connection may be opened, by a response
        self._log = log.bind(connection=number)

    @property
    def session(self) -> Session | None:
        """Open session in use; None while there is none."""
        return self._session if self._state == "streaming" else None

    def status(self) -> ConnectionStatus:
        """Return the status. For any thread."""
        session = self._session
        return ConnectionStatus(
            id=self._number,
            state=self._state,
            streams=len(self._streams()),
            connected_time_us=session.connected_time_us if session else None,
            last_frame_time_us=session.last_frame_time_us if session else None,
            reconnects=max(0, self._attempts - 1),
            reason=self._reason,
        )

    def rotate(self, reason: str) -> None:
        """Request a rotation of the session."""
        self._rotation_reason = reason
        self._rotation_requested.set()

    async def run(self) -> None:
        """Connect and reconnect until cancelled."""
        delays = self._parts.new_delays()
        ended_at: float | None = None
        refused = logs.Episode(
            self._log, "connection refused by the venue", "connection accepted by the venue"
        )
        # Failed attempts are counted: the last log line of the episode has their number, `/status` the last reason.
        lost = logs.Episode(self._log, "connection closed", "connection opened", self._parts.monotonic)
        while True:
            self._session = None
            self._state = "refused" if refused.active else "connecting"
            self._attempts += 1
            self._rotation_requested.clear()  # a request for the previous session
            got_data = False
            if ended_at is not None:  # before opening: messages may arrive with the handshake
                self._parts.pipeline.resets.mark_outage(self.symbols, self._parts.monotonic() - ended_at)
            try:
                session = self._session = await self._open(track_deliveries=False)
                self._state, self._reason = "streaming", ""
                refused.end()
                if lost.active:
                    lost.end(streams=len(session.streams))
                else:
                    self._log.info("connection opened", streams=len(session.streams))
                ending = await self._stream()
                ended_at = self._parts.monotonic()
                got_data = self._session.got_data
                message = str(ending)
                delay = self._ended(
                    "connection_closed", message, self._parts.new_delays() if got_data else delays
                )
                delay = max(delay, self._retry_after - ended_at)
            except Refused as error:
                self._ended(error.reason, str(error), delays)
                self._state = "refused"
                # A refusal is lifted by people, if at all; frequent retries may extend it.
                delay = REFUSED_SECONDS * self._parts.rng.uniform(0.8, 1.2)
                refused.begin(reason=str(error), retry_in_seconds=round(delay))
                await asyncio.sleep(delay)
                continue
            except Limited as error:
                self._ended(error.reason, str(error), delays)
                delay = error.retry_after_seconds
            except Unreachable as error:
                delay = self._ended(error.reason, str(error), delays)
            if got_data:
                delays = self._parts.new_delays()
            lost.begin(reason=self._reason, retry_in_seconds=round(delay, 2))
            await asyncio.sleep(delay)

    async def change_symbols(self, symbols: list[str]) -> None:
        """Change the symbols, by commands on an open connection.

        Raises:
            Unreachable: a command failed; the connection is then rotated, which applies the change.
        """
        self.symbols = list(symbols)
        session = self._session
        if session is None or self._state != "streaming":
            return
        try:
            await self._update_subscriptions(session)
        except Unreachable:
            if self._session is session:  # otherwise it was rotated, and the new session has the change
                self.rotate("command_failed")
                raise

    def cover(self) -> set[str]:
        """Return the streams that the venue has confirmed for this connection."""
        return set(self.session.streams) if self.session is not None else set()

    async def _open(self, *, track_deliveries: bool) -> Session:
        parts = self._parts
        await parts.attempts.acquire()
        session = Session(
            parts.venue, parts.settings, parts.pipeline, parts.counters, parts.now_us, parts.monotonic
        )
        base = self._settings.binance_ws_base or parts.venue.facts.ws_base
        await session.open(parts.open_socket, base, self._streams(), track_deliveries=track_deliveries)
        await self._make_ready(session)
        return session

    async def _make_ready(self, session: Session) -> None:
        """Update the subscriptions of a session that is not in use yet; close it on failure."""
        try:
            await self._update_subscriptions(session)
        except (Unreachable, asyncio.CancelledError):
            session.close()
            raise

    async def _update_subscriptions(self, session: Session) -> None:
        """Update the subscriptions of `session` until they match: symbols can change during commands."""
        while session.streams.keys() != set(self._streams()):
            desired = self._streams()
            added = [stream for stream in desired if stream not in session.streams]
            removed = [stream for stream in session.streams if stream not in desired]
            if added:
                await session.subscribe(added)
            if removed:
                await session.unsubscribe(removed)

    async def _stream(self) -> Closed:
        """Wait for the end of the session and return it; rotations replace the session."""
        try:
            while True:
                session = self._current()
                ended = asyncio.create_task(session.ended(), name=f"ended-{self._number}")
                due = asyncio.create_task(self._rotation_due(session), name=f"renewal-{self._number}")
                try:
                    await asyncio.wait({ended, due}, return_when=asyncio.FIRST_COMPLETED)
                    if ended.done():
                        return ended.result()
                    await self._replace(session, due.result(), ended)
                finally:
                    due.cancel()
                    ended.cancel()
        finally:
            self._state = "waiting"
            self._current().close()

    async def _rotation_due(self, session: Session) -> str:
        """Wait until a rotation is due; return the reason."""
        settings = self._settings
        age_seconds = rotation_age(
            session.connected_time_us / 1e6,
            min(settings.ws_rotate_after_seconds, self._parts.venue.facts.connection_life_seconds),
            parse_window(settings.ws_rotate_window),
            self._parts.rng,
        )
        announced = asyncio.create_task(session.ending_soon.wait(), name="announced")
        asked = asyncio.create_task(self._rotation_requested.wait(), name="asked")
        try:
            seconds = max(0.0, session.connected_at + age_seconds - self._parts.monotonic())
            await asyncio.wait({announced, asked}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            if asked.done():
                return self._rotation_reason
            return "announced" if announced.done() else "rotation"
        finally:
            announced.cancel()
            asked.cancel()

    async def _replace(self, old: Session, reason: str, old_ended: "asyncio.Task[Closed]") -> None:
        """Open a second session and close `old` once the new one has warmed up; retry while it does not."""
        self._rotation_requested.clear()
        self._log.info("rotation started", reason=reason)
        kept = logs.Episode(self._log, "rotation failed", "rotation attempts ended")
        try:
            await self._open_successor(old, reason, old_ended, kept)
        finally:
            kept.end(reason=reason)

    async def _open_successor(
        self, old: Session, reason: str, old_ended: "asyncio.Task[Closed]", kept: logs.Episode
    ) -> None:
        delays = self._parts.new_delays()
        while not old_ended.done():
            retry_seconds = self._retry_after - self._parts.monotonic()
            if retry_seconds > 0:
                await asyncio.wait({old_ended}, timeout=retry_seconds)
                continue
            if reason == "rotation" and self._parts.pipeline.paused:
                await asyncio.wait({old_ended}, timeout=PAUSED_CHECK_SECONDS)
                continue
            broken = self._parts.streams.broken(self._streams())
            if reason.endswith("_stream") and not broken:
                self._log.info("rotation cancelled: streams deliver again", reason=reason)
                return
            try:
                new = await self._open(track_deliveries=True)
                await self._warm_up(new, must_deliver=broken if reason.endswith("_stream") else set())
            except (Refused, Unreachable) as error:
                self._parts.counters.failures[error.reason] += 1
                delay = max(next(delays), getattr(error, "retry_after_seconds", 0.0))
                if isinstance(error, Refused):
                    delay = REFUSED_SECONDS * self._parts.rng.uniform(0.8, 1.2)
                if isinstance(error, Refused | Limited):
                    self._retry_after = self._parts.monotonic() + delay
                kept.begin(reason=str(error), retry_in_seconds=round(delay, 2))
                await asyncio.wait({old_ended}, timeout=delay)
                continue
            # Closed while reads are paused, the old connection would lose what its buffers hold.
            while self._parts.pipeline.paused and not old_ended.done():
                await asyncio.wait({old_ended}, timeout=PAUSED_CHECK_SECONDS)
            self._session = new
            self._parts.counters.rotations[reason] += 1
            old.close()
            self._rotation_requested.clear()  # a request for the old session
            self._log.info("connection rotated", reason=reason, streams=len(new.streams))
            return

    async def _warm_up(self, new: Session, must_deliver: set[str]) -> None:
        """Wait until each stream of `new` has delivered or nothing newer exists; close `new` on failure.

        Args:
            new: the new session.
            must_deliver: stalled streams; the session is useless if it delivers none of them.

        Raises:
            Unreachable: the session ended, or does not deliver what the session in use delivers.
        """
        ended = asyncio.create_task(new.ended(), name="new-ended")
        try:
            parts, max_seconds = self._parts, self._settings.ws_warm_timeout_seconds
            warm_up = WarmUp(new, ended, parts.streams, parts.monotonic, max_seconds)
            await warm_up.wait(self._streams, must_deliver)
            idle = new.undelivered - must_deliver
            await self._make_ready(new)
            new.use(idle)
        except (Unreachable, asyncio.CancelledError):
            new.close()
            raise
        finally:
            ended.cancel()

    def _current(self) -> Session:
        if self._session is None:
            raise RuntimeError("there is no session")
        return self._session

    def _streams(self) -> list[str]:
        return [stream for symbol in self.symbols for stream in self._parts.venue.streams(symbol)]

    def _ended(self, reason: str, message: str, delays: Iterator[float]) -> float:
        self._parts.counters.failures[reason] += 1
        self._state, self._reason = "waiting", message
        return next(delays)
