"""Pacing: pulls frames from a source when they are due and publishes them to the hub.

At a paced speed (1x, Nx) the market's time follows the clock: a client that reads too slowly or is disconnected loses
data, as at a real venue. At speed "max" the market's time is that of the last frame sent: the market runs as fast as
the slowest reader and by default stops while there is no subscriber.
"""

import asyncio
import contextlib
import math
import time
from collections.abc import Callable, Iterable
from typing import Final

from marketfeed_service import logs
from marketfeed_simulator.hub import Hub, Outlet
from marketfeed_simulator.source import Source

_BATCH_FRAMES: Final = 512
_SHORTEST_SLEEP_SECONDS: Final = 0.001
_LONGEST_SLEEP_SECONDS: Final = 0.05
_REPORT_SECONDS: Final = 10.0
_HIGH_WATER_BYTES: Final = 256 * 1024

log = logs.get(__name__)


class Driver:
    """Runs a market.

    Args:
        speed: seconds of market time per second; None for as fast as the slowest reader.
        wait: begin when every trade and bookTicker stream has a subscriber; at speed None, also stop while there is
            no subscriber, until the streams that had one have one again.
        most_buffered_bytes: write buffer above which a connection is closed as a slow reader; paced speeds only.
        monotonic: a clock in seconds.
    """

    def __init__(
        self,
        hub: Hub,
        source: Source,
        *,
        speed: float | None,
        wait: bool,
        most_buffered_bytes: int,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._hub = hub
        self._source = source
        self._speed = speed
        self._wait = wait
        self._most_buffered_bytes = most_buffered_bytes
        self._monotonic = monotonic
        self._base_us = source.start_us
        self._base_at: float | None = None
        self.state = "not started"
        self.skew_us = 0

    @property
    def finished(self) -> bool:
        """Whether the last frame has been written to the subscribers' sockets."""
        return self.state == "finished"

    @property
    def paced(self) -> bool:
        """Whether the market's time follows the clock."""
        return self._speed is not None

    def market_us(self) -> int:
        """Return the market's time without skew, in microseconds since the epoch."""
        if self._base_at is None or self._speed is None:
            return self._base_us
        return self._base_us + int((self._monotonic() - self._base_at) * self._speed * 1e6)

    def server_us(self) -> int:
        """Return the time of the venue's clock."""
        return self.market_us() + self.skew_us

    def accelerate(self, factor: float) -> None:
        """Multiply the speed by `factor`. Paced speeds only."""
        if self._speed is not None:
            self._base_us, self._base_at = (
                self.market_us(),
                self._monotonic() if self._base_at is not None else None,
            )
            self._speed *= factor

    async def run(self) -> None:
        """Run the market to its end; return when the last frame has been written."""
        if self._wait:
            await self._until_covered(_awaited(self._source.streams))
        self.state = "running"
        self._base_at = self._monotonic()
        log.info("market started", speed=self._speed or "max", streams=len(self._source.streams))
        report = asyncio.create_task(self._report(), name="progress")
        try:
            await (self._run_max() if self._speed is None else self._run_paced())
        finally:
            report.cancel()
        self._hub.release_held()
        self._hub.flush()
        self.state = "finished"
        log.info("market finished: last frame sent", frames=self._hub.frames)

    async def _run_paced(self) -> None:
        hub, source = self._hub, self._source
        while not source.finished:
            until_us = self.market_us()
            frames = source.pull(until_us, _BATCH_FRAMES)
            for frame in frames:
                hub.publish(frame)
            hub.flush(self._most_buffered_bytes)
            if len(frames) == _BATCH_FRAMES:
                await asyncio.sleep(0)
                continue
            next_us = source.next_us()
            ahead = _LONGEST_SLEEP_SECONDS
            if next_us is not None and self._speed is not None:
                ahead = (next_us - until_us) / 1e6 / self._speed
            await asyncio.sleep(min(max(ahead, _SHORTEST_SLEEP_SECONDS), _LONGEST_SLEEP_SECONDS))

    async def _run_max(self) -> None:
        hub, source = self._hub, self._source
        while not source.finished:
            frames = source.pull(None, _BATCH_FRAMES)
            if not frames:  # every symbol is halted
                await asyncio.sleep(_LONGEST_SLEEP_SECONDS)
            for frame in frames:
                if self._wait and not hub.receivers and not hub.lose:
                    await self._until_back()
                hub.publish(frame)
                self._base_us = max(self._base_us, frame.time_us)
            hub.flush()
            await self._drained()

    async def _drained(self) -> None:
        """Wait until every connection's write buffer is below the high-water mark."""
        await asyncio.sleep(0)  # let the loop write, and read requests
        for outlet in list(self._hub.outlets.values()):
            if outlet.receiving and outlet.sink.get_write_buffer_size() > _HIGH_WATER_BYTES:
                await self._drain(outlet)

    async def _drain(self, outlet: Outlet) -> None:
        waiting = asyncio.ensure_future(outlet.drain())
        # Never cancelled: that would also cancel a close that drains the same transport.
        waiting.add_done_callback(_retrieve)
        # A fault may stall the connection meanwhile; its buffer then never drains.
        while outlet.receiving and not waiting.done():
            await asyncio.wait([waiting], timeout=_LONGEST_SLEEP_SECONDS)
        if waiting.done() and waiting.exception() is not None:
            self._hub.pause(outlet)  # closed; its handler detaches it

    async def _until_back(self) -> None:
        """Stop until a subscriber is back, and wait some time for the others."""
        hub = self._hub
        self.state = "waiting for subscribers"
        await self._until_covered(hub.expected & self._source.streams, _REPORT_SECONDS)
        hub.expected -= set(hub.without_subscriber(hub.expected))
        self.state = "running"

    async def _until_covered(self, streams: Iterable[str], at_most_seconds: float = math.inf) -> None:
        """Wait until each of `streams` has a subscriber, or `at_most_seconds` after the first."""
        hub = self._hub
        logged_at = first_at = -math.inf
        while missing := hub.without_subscriber(streams) or not hub.receivers:
            now = self._monotonic()
            if hub.receivers and first_at < 0:
                first_at = now
            if hub.receivers and now >= first_at + at_most_seconds:
                return
            if now - logged_at >= _REPORT_SECONDS:
                logged_at = now
                log.info("waiting for subscribers", missing_streams=missing if missing is not True else "all")
            hub.changed.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(hub.changed.wait(), _REPORT_SECONDS / 10)

    async def _report(self) -> None:
        while True:
            before = self._hub.frames
            await asyncio.sleep(_REPORT_SECONDS)
            rate = (self._hub.frames - before) / _REPORT_SECONDS
            log.info("market running", frames=self._hub.frames, frames_per_second=round(rate))


def _retrieve(drain: asyncio.Future[None]) -> None:
    if not drain.cancelled():
        error = drain.exception()
        if error is not None and not isinstance(error, ConnectionError):
            raise error


def _awaited(streams: frozenset[str]) -> set[str]:
    """Return the streams to wait for: trades and quotes, or all streams of a recording that has neither."""
    return {name for name in streams if name.endswith(("@trade", "@bookTicker"))} or set(streams)
