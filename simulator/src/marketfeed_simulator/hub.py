"""Distribution of frames: subscribers by stream, their pending bytes, and frame faults.

All calls come from the event loop's thread and do not block. `publish` only collects; `flush` writes each connection's
bytes at once, so that a frame costs an append and not a system call.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Final, Protocol

import msgspec

from marketfeed_simulator.frame_faults import ActiveFrameFault, DelayedFrames, apply_faults
from marketfeed_simulator.frames import Frame
from marketfeed_simulator.ledger import Exchange

_NEVER: Final = 1 << 62


class Sink(Protocol):
    """The part of an asyncio transport that an outlet writes to."""

    def write(self, data: bytes) -> None:
        """Queue bytes."""

    def is_closing(self) -> bool:
        """Whether nothing more can be written."""

    def get_write_buffer_size(self) -> int:
        """Bytes queued and not yet taken by the system."""

    def abort(self) -> None:
        """Close the connection at once."""


class Delivered(msgspec.Struct):
    """Totals sent over all connections."""

    frames: int = 0
    bytes: int = 0
    slow_readers_cut: int = 0


class Outlet:
    """The sending side of one connection.

    Attributes:
        receiving: False while no market data may be sent: stalled, half open or closing.
        variant: form of the frames (`Frame.wire`).
        frames: number of market frames written to the socket or pending.
    """

    def __init__(self, number: int, sink: Sink, variant: int, drain: Callable[[], Awaitable[None]]) -> None:
        self.number = number
        self.sink = sink
        self.drain = drain
        self.variant = variant
        self.receiving = True
        self.frames = 0
        self.bytes = 0
        self.streams: dict[str, None] = {}
        self.pending: list[bytes] = []
        self.held = DelayedFrames()

    def send(self, data: bytes) -> None:
        """Write a protocol message to the socket, after the pending frames."""
        self.flush()
        if not self.sink.is_closing():
            self.sink.write(data)

    def flush(self) -> None:
        """Write the pending frames to the socket."""
        if not self.pending:
            return
        if self.sink.is_closing():
            self.frames -= len(self.pending)
        else:
            data = b"".join(self.pending)
            self.bytes += len(data)
            self.sink.write(data)
        self.pending.clear()


class Hub:
    """Records the market's frames in the exchange and sends them to the subscribers.

    Attributes:
        frames: number of frames that the market has produced.
        lose: number of next frames that are sent to nobody.
        receivers: number of receiving connections with at least one stream.
        expected: streams that were subscribed and not unsubscribed, whether the subscriber is connected or not.
        next_fault_at: value of `frames` at which `on_fault_due` is called.
    """

    def __init__(self, exchange: Exchange) -> None:
        self.exchange = exchange
        self.frames = 0
        self.lose = 0
        self.receivers = 0
        self.expected: set[str] = set()
        self.next_fault_at = _NEVER
        self.on_fault_due: Callable[[], None] = lambda: None
        self.frame_faults: list[ActiveFrameFault] = []
        self.outlets: dict[int, Outlet] = {}
        self.changed = asyncio.Event()
        self._subscribers: dict[str, list[Outlet]] = {}
        self._holding = False
        self._ended = Delivered()

    @property
    def delivered(self) -> Delivered:
        """Totals of all connections, open and closed."""
        total = msgspec.structs.replace(self._ended)
        for outlet in self.outlets.values():
            total.frames += outlet.frames
            total.bytes += outlet.bytes
        return total

    def attach(self, outlet: Outlet) -> None:
        """Add a connection."""
        self.outlets[outlet.number] = outlet

    def detach(self, outlet: Outlet) -> None:
        """Remove a connection that ended."""
        outlet.flush()
        outlet.receiving = False
        self._remove(outlet, list(outlet.streams))
        if self.outlets.pop(outlet.number, None) is not None:
            self._ended.frames += outlet.frames
            self._ended.bytes += outlet.bytes
        self._recount()

    def subscribe(self, outlet: Outlet, streams: Iterable[str]) -> None:
        """Subscribe `outlet` to `streams`."""
        for stream in streams:
            if stream not in outlet.streams:
                outlet.streams[stream] = None
                self._subscribers.setdefault(stream, []).append(outlet)
                self.expected.add(stream)
        self._recount()

    def unsubscribe(self, outlet: Outlet, streams: Iterable[str]) -> None:
        """Unsubscribe `outlet` from `streams`."""
        names = list(streams)
        self._remove(outlet, names)
        self.expected -= {name for name in names if name not in self._subscribers}
        self._recount()

    def _remove(self, outlet: Outlet, streams: Iterable[str]) -> None:
        for stream in streams:
            if stream in outlet.streams:
                del outlet.streams[stream]
                others = [other for other in self._subscribers[stream] if other is not outlet]
                if others:
                    self._subscribers[stream] = others
                else:
                    del self._subscribers[stream]

    def pause(self, outlet: Outlet) -> None:
        """Stop market data to `outlet`, after flushing the pending frames."""
        outlet.flush()
        outlet.receiving = False
        self._recount()

    def resume(self, outlet: Outlet) -> None:
        """Resume market data to `outlet`."""
        outlet.receiving = True
        self._recount()

    def without_subscriber(self, streams: Iterable[str]) -> list[str]:
        """Return those of `streams` without a receiving subscriber, sorted."""
        return sorted(
            stream
            for stream in streams
            if not any(outlet.receiving for outlet in self._subscribers.get(stream, ()))
        )

    def publish(self, frame: Frame) -> None:
        """Record `frame` and collect it for its subscribers."""
        self.exchange.record(frame)
        self.frames += 1
        if self.lose:
            self.lose -= 1
        else:
            subscribers = self._subscribers.get(frame.stream)
            if self.frame_faults or self._holding:
                self._publish_with_faults(frame, subscribers or [])
            elif subscribers:
                for outlet in subscribers:
                    if outlet.receiving:
                        outlet.pending.append(frame.wire(outlet.variant))
                        outlet.frames += 1
        if self.frames >= self.next_fault_at:
            self.on_fault_due()

    def _publish_with_faults(self, frame: Frame, subscribers: list[Outlet]) -> None:
        receiving = [outlet for outlet in subscribers if outlet.receiving]
        numbers = [outlet.number for outlet in receiving]
        struck = [active.fault for active in self.frame_faults if active.strikes(frame.stream, numbers)]
        for outlet in receiving:
            mine = [fault for fault in struck if fault.connection in (None, outlet.number)]
            sent = apply_faults(frame, outlet.variant, mine, outlet.held)
            outlet.pending += sent
            outlet.frames += len(sent)
        self.frame_faults = [active for active in self.frame_faults if not active.exhausted]
        self._holding = any(outlet.held for outlet in self.outlets.values())

    def release_held(self) -> None:
        """Collect the frames that reorder faults still delay."""
        for outlet in self.outlets.values():
            rest = outlet.held.flush()
            outlet.pending += rest
            outlet.frames += len(rest)

    def flush(self, most_buffered: int = _NEVER) -> None:
        """Write the collected frames; close a connection with more than `most_buffered` bytes in its buffer."""
        for outlet in list(self.outlets.values()):
            outlet.flush()
            if outlet.receiving and outlet.sink.get_write_buffer_size() > most_buffered:
                self._ended.slow_readers_cut += 1
                self.pause(outlet)
                outlet.sink.abort()

    def _recount(self) -> None:
        self.receivers = sum(1 for outlet in self.outlets.values() if outlet.receiving and outlet.streams)
        self.changed.set()
