"""Effects of the faults on the parts of the simulator. `fault_injector` decides when they begin and end."""

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

from marketfeed_simulator import faults
from marketfeed_simulator.faults import AnyFault
from marketfeed_simulator.frame_faults import ActiveFrameFault
from marketfeed_simulator.hub import Hub
from marketfeed_simulator.instruments import Instrument, instrument
from marketfeed_simulator.limits import RequestLimits
from marketfeed_simulator.market import GeneratedMarket, Rates
from marketfeed_simulator.request_faults import Counted, RequestFaults

Undo = Callable[[], None]


@dataclass(slots=True)
class Entry:
    """A fault that was set."""

    number: int
    fault: AnyFault
    begins_at_frame: int | None = None
    begun: bool = False
    undo: Undo | None = None
    counter: ActiveFrameFault | Counted[Any] | None = None
    connections: list[int] = field(default_factory=list)

    def state(self) -> str:
        """Return "armed" before the fault begins, "active" while its effect can be undone, then "done"."""
        if not self.begun:
            return "armed"
        if self.undo is None or (self.counter is not None and self.counter.exhausted):
            return "done"
        return "active"

    def as_fields(self) -> dict[str, Any]:
        """Return the entry as JSON fields."""
        shown: dict[str, Any] = {"id": self.number, "state": self.state(), **faults.as_fields(self.fault)}
        if self.counter is not None:
            shown["hits"] = self.counter.hits
        if self.connections:
            shown["connections"] = self.connections
        return shown


class Abortable(Protocol):
    """The part of a transport that faults use."""

    def abort(self) -> None:
        """Close the connection at once."""


class FaultTarget(Protocol):
    """A client connection that faults act on: the simulator's own, or its model in simtest/."""

    number: int

    @property
    def transport(self) -> Abortable:
        """The connection's transport."""

    def stall(self) -> None:
        """Stop sending market data; pings and replies continue."""

    def unstall(self) -> None:
        """Resume sending market data."""

    def freeze(self) -> None:
        """Stop reading and writing without closing the connection."""

    def cut(self, why: str, *, reset: bool) -> None:
        """Close the TCP connection without a close frame; `reset` discards unsent data."""

    def close_soon(self, code: int, reason: str, why: str, after_seconds: float = 0) -> None:
        """Schedule a close by the venue and return at once."""

    def notify_shutdown(self) -> None:
        """Send the serverShutdown event."""


class Sockets(Protocol):
    """The open connections."""

    @property
    def connections(self) -> Mapping[int, FaultTarget]:
        """Open connections by number."""


class Pace(Protocol):
    """The market's clock."""

    skew_us: int

    @property
    def paced(self) -> bool:
        """Whether the market's time follows the clock."""


class Replay(Protocol):
    """A replayed recording."""

    def accelerate(self, factor: float) -> None:
        """Multiply the replay speed by `factor`."""


@dataclass(slots=True, kw_only=True)
class Parts:
    """The parts of the simulator that faults act on. The market is generated (`market`) or replayed (`replay`)."""

    hub: Hub
    driver: Pace
    sockets: Sockets
    request_faults: RequestFaults
    limits: RequestLimits
    instruments: dict[str, Instrument]
    market: GeneratedMarket | None = None
    replay: Replay | None = None


class Effects:
    """Applies faults to `parts`."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def begin(self, entry: Entry) -> Undo | None:
        """Apply the fault of `entry`. Return the function that undoes it, or None."""
        match entry.fault:
            case faults.FrameFault() as fault:
                return self._frame_fault(entry, fault)
            case faults.ConnectionFault() as fault:
                return self._connection_fault(entry, fault)
            case faults.Refuse() | faults.RestDelay() | faults.RestError() as fault:
                return self._begin_request_fault(entry, fault)
            case faults.SymbolFault() as fault:
                return self._symbol_fault(fault)
            case fault:
                return self._venue_fault(fault)

    def _frame_fault(self, entry: Entry, fault: faults.FrameFault) -> Undo:
        active = entry.counter = ActiveFrameFault(fault)
        hub = self._parts.hub
        hub.frame_faults.append(active)

        def undo() -> None:
            hub.frame_faults = [other for other in hub.frame_faults if other is not active]
            hub.release_held()

        return undo

    def _connection_fault(self, entry: Entry, fault: faults.ConnectionFault) -> Undo | None:
        struck = self._struck(fault)
        entry.connections = [connection.number for connection in struck]
        match fault:
            case faults.Cut(lose_frames=lose, reset=reset):
                for connection in struck:
                    connection.cut("cut", reset=reset)
                self._parts.hub.lose += lose
            case faults.Stall(streams=streams) if streams:
                return self._stall_streams(struck, streams)
            case faults.Stall():
                _each([connection.stall for connection in struck])
                return partial(_each, [connection.unstall for connection in struck])
            case faults.HalfOpen():
                _each([connection.freeze for connection in struck])
                return partial(_each, [connection.transport.abort for connection in struck])
            case _:
                for connection in struck:
                    _close(connection, fault)
        return None

    def _stall_streams(self, struck: list[FaultTarget], streams: tuple[str, ...]) -> Undo:
        hub = self._parts.hub
        drops = [
            ActiveFrameFault(faults.Drop(streams=streams, connection=connection.number, count=None))
            for connection in struck
        ]
        hub.frame_faults += drops

        def undo() -> None:
            hub.frame_faults = [other for other in hub.frame_faults if other not in drops]

        return undo

    def _struck(self, fault: faults.ConnectionFault) -> list[FaultTarget]:
        everyone = self._parts.sockets.connections
        if fault.connection is None:
            return list(everyone.values())
        return [everyone[fault.connection]] if fault.connection in everyone else []

    def _begin_request_fault(
        self, entry: Entry, fault: faults.Refuse | faults.RestDelay | faults.RestError
    ) -> Undo:
        request_faults = self._parts.request_faults
        queue: list[Any]
        match fault:
            case faults.Refuse():
                queue = request_faults.refusals
            case faults.RestDelay():
                queue = request_faults.delays
            case _:
                queue = request_faults.errors
        counted: Counted[Any] = Counted(fault)
        entry.counter = counted
        queue.append(counted)
        return lambda: queue.remove(counted)

    def _symbol_fault(self, fault: faults.SymbolFault) -> Undo | None:
        for symbol in fault.symbols:
            match fault:
                case faults.Halt(status=status):
                    self._set_status(symbol, status)
                case faults.Resume():
                    self._set_status(symbol, "TRADING")
                case faults.Delist():
                    self._delist(symbol)
                case faults.List(trade_rate=trades, quote_rate=quotes):
                    self._list(symbol, Rates(trades, quotes))
                case _ if self._parts.market is not None:
                    self._id_fault(symbol, fault, self._parts.market)
        if isinstance(fault, faults.Halt):
            return partial(_each, [partial(self._set_status, symbol, "TRADING") for symbol in fault.symbols])
        return None

    def _id_fault(self, symbol: str, fault: faults.SymbolFault, market: GeneratedMarket) -> None:
        match fault:
            case faults.SkipIds(count=skipped):
                market.skip_ids(symbol, skipped)
            case faults.RestartIds(last_id=last_id):
                market.restart_ids(symbol, last_id)
                self._parts.hub.exchange.restart(symbol)
            case faults.OddRows(count=count):
                first = market.last_trade_id(symbol) + 1
                self._parts.request_faults.odd_rows |= {
                    (symbol, number) for number in range(first, first + count)
                }

    def _set_status(self, symbol: str, status: str) -> None:
        known = self._parts.instruments.get(symbol)
        if known is None:
            return  # delisted in the meantime
        known.status = status
        if self._parts.market is not None:
            self._parts.market.set_status(symbol, status)

    def _delist(self, symbol: str) -> None:
        if self._parts.instruments.pop(symbol, None) is not None and self._parts.market is not None:
            self._parts.market.remove(symbol)

    def _list(self, symbol: str, rates: Rates) -> None:
        listed = self._parts.instruments[symbol] = instrument(symbol)
        if self._parts.market is not None:
            self._parts.market.add(listed, rates)

    def _venue_fault(self, fault: AnyFault) -> Undo | None:
        parts, now = self._parts, time.monotonic()
        match fault:
            case faults.RateLimit(seconds=seconds):
                parts.limits.force_back_off(seconds, now)
                return parts.limits.reset
            case faults.Ban(seconds=seconds):
                parts.limits.force_ban(seconds, now)
                return parts.limits.reset
            case faults.RestLag(seconds=seconds):
                return self._lag(seconds)
            case faults.WrongUnit():
                return self._wrong_unit()
            case faults.ClockSkew(milliseconds=milliseconds):
                self._skew(milliseconds)
                return lambda: self._skew(0)
            case faults.Burst(factor=factor):
                return self._burst(factor)
        return None

    def _burst(self, factor: float) -> Undo | None:
        market, replay = self._parts.market, self._parts.replay
        if market is not None:
            market.set_burst(factor)
            return lambda: market.set_burst(1)
        if replay is not None:
            replay.accelerate(factor)
            return lambda: replay.accelerate(1 / factor)
        return None

    def _lag(self, seconds: float) -> Undo:
        request_faults = self._parts.request_faults
        request_faults.lag_seconds = seconds

        def undo() -> None:
            request_faults.lag_seconds = 0.0

        return undo

    def _wrong_unit(self) -> Undo:
        request_faults = self._parts.request_faults
        request_faults.milliseconds_only = True

        def undo() -> None:
            request_faults.milliseconds_only = False

        return undo

    def _skew(self, milliseconds: int) -> None:
        self._parts.driver.skew_us = milliseconds * 1000
        if self._parts.market is not None:
            self._parts.market.skew_us = milliseconds * 1000


def _each(calls: Iterable[Callable[[], None]]) -> None:
    for call in calls:
        call()


def _close(connection: FaultTarget, fault: faults.ConnectionFault) -> None:
    """Close a connection as the venue does, at once or after a notice."""
    match fault:
        case faults.Close(code=code, reason=reason):
            connection.close_soon(code, reason, f"closed {code}")
        case faults.EndOfLife(notice_seconds=notice):
            if notice:
                connection.notify_shutdown()
            connection.close_soon(1001, "", "end of life", notice)
        case faults.ServerShutdown(close_after_seconds=after):
            connection.notify_shutdown()
            if after is not None:
                connection.close_soon(1001, "", "server shutdown", after)
