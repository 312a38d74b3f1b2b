"""Who gets which frame: subscribers by stream, their pending bytes, and the faults on the way.

Everything here is called from the event loop's thread and returns at once. `publish` only collects; `flush` hands
each connection its bytes in one write, so that a frame costs an append and not a system call.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Final, Protocol

import msgspec

from marketfeed_simulator.frame_faults import ActiveFrameFault, HeldBack, pieces
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
        """End the connection now."""


class Delivered(msgspec.Struct):
    """What went out to connections, in all."""

    frames: int = 0
    bytes: int = 0
    slow_readers_cut: int = 0


class Outlet:
    """The sending side of one connection.

    Attributes:
        receiving: False once nothing of the market may reach it: mute, half open or ending.
        variant: which form of a frame it gets (`Frame.wire`).
        frames: of the market, handed to the socket or about to be.
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
        self.held = HeldBack()

    def send(self, data: bytes) -> None:
        """Hand a protocol message to the socket, behind the frames collected so far."""
        self.flush()
        if not self.sink.is_closing():
            self.sink.write(data)

    def flush(self) -> None:
        """Hand what is pending to the socket."""
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
    """Takes the market's frames, enters them in the exchange's books, and gives them to the subscribers.

    Attributes:
        frames: how many the market has produced.
        lose: how many of the next frames go to nobody.
        receivers: connections with at least one stream that can receive.
        expected: streams that were subscribed to and not given up by their subscriber, connected or not.
        next_fault_at: call `on_fault_due` when `frames` reaches this.
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
        """What was handed to the sockets of all connections, also those that ended since."""
        total = msgspec.structs.replace(self._ended)
        for outlet in self.outlets.values():
            total.frames += outlet.frames
            total.bytes += outlet.bytes
        return total

    def attach(self, outlet: Outlet) -> None:
        """Take in a new connection."""
        self.outlets[outlet.number] = outlet

    def detach(self, outlet: Outlet) -> None:
        """Let go of a connection that ended."""
        outlet.flush()
        outlet.receiving = False
        self._remove(outlet, list(outlet.streams))
        if self.outlets.pop(outlet.number, None) is not None:
            self._ended.frames += outlet.frames
            self._ended.bytes += outlet.bytes
        self._recount()

    def subscribe(self, outlet: Outlet, streams: Iterable[str]) -> None:
        """Give `outlet` the frames of `streams` from now on."""
        for stream in streams:
            if stream not in outlet.streams:
                outlet.streams[stream] = None
                self._subscribers.setdefault(stream, []).append(outlet)
                self.expected.add(stream)
        self._recount()

    def unsubscribe(self, outlet: Outlet, streams: Iterable[str]) -> None:
        """Give `outlet` no more frames of `streams`, as it asked."""
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

    def mute(self, outlet: Outlet) -> None:
        """Give `outlet` nothing more of the market; what was collected so far is handed over."""
        outlet.flush()
        outlet.receiving = False
        self._recount()

    def unmute(self, outlet: Outlet) -> None:
        """Give `outlet` its streams again."""
        outlet.receiving = True
        self._recount()

    def without_subscriber(self, streams: Iterable[str]) -> list[str]:
        """Those of `streams` that no receiving connection has, sorted."""
        return sorted(
            stream
            for stream in streams
            if not any(outlet.receiving for outlet in self._subscribers.get(stream, ()))
        )

    def publish(self, frame: Frame) -> None:
        """Enter `frame` in the books and collect it for its subscribers."""
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
            sent = pieces(frame, outlet.variant, mine, outlet.held)
            outlet.pending += sent
            outlet.frames += len(sent)
        self.frame_faults = [active for active in self.frame_faults if not active.exhausted]
        self._holding = any(outlet.held for outlet in self.outlets.values())

    def release_held(self) -> None:
        """Send what reorder faults still hold back."""
        for outlet in self.outlets.values():
            rest = outlet.held.flush()
            outlet.pending += rest
            outlet.frames += len(rest)

    def flush(self, most_buffered: int = _NEVER) -> None:
        """Hand each connection what was collected; one with more than `most_buffered` bytes waiting is cut."""
        for outlet in list(self.outlets.values()):
            outlet.flush()
            if outlet.receiving and outlet.sink.get_write_buffer_size() > most_buffered:
                self._ended.slow_readers_cut += 1
                self.mute(outlet)
                outlet.sink.abort()

    def _recount(self) -> None:
        self.receivers = sum(1 for outlet in self.outlets.values() if outlet.receiving and outlet.streams)
        self.changed.set()
