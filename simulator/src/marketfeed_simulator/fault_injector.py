"""Life of a fault: set, begin at a frame or time, end, remove.

`faults` defines the faults, `fault_effects` applies them.
"""

import asyncio
from collections.abc import Callable
from itertools import count
from typing import Final

from marketfeed_service import logs
from marketfeed_simulator import faults
from marketfeed_simulator.fault_effects import Effects, Entry, Parts
from marketfeed_simulator.faults import AnyFault

_NEVER: Final = 1 << 62
_PASSING: Final = (faults.FrameFault, faults.Stall, faults.HalfOpen, faults.Halt, faults.Burst)
"""Faults that end after their `seconds`."""

log = logs.get(__name__)


class FaultInjector:
    """Sets, begins and removes faults. Create it inside a running event loop."""

    def __init__(self, parts: Parts) -> None:
        self.entries: dict[int, Entry] = {}
        self._parts = parts
        self._effects = Effects(parts)
        self._numbers = count(1)
        self._timers: dict[int, asyncio.TimerHandle] = {}
        parts.hub.on_fault_due = self._begin_due

    def set(self, fault: AnyFault) -> Entry:
        """Set a fault; it begins now, or after its frames or seconds.

        Raises:
            ValueError: the fault is not possible with this market or in its current state.
        """
        if fault.after_frames is not None and fault.after_seconds is not None:
            raise ValueError("after_frames and after_seconds are both set: only one of them may be")
        self._check(fault)
        entry = Entry(next(self._numbers), fault)
        if fault.after_frames:
            entry.begins_at_frame = self._parts.hub.frames + fault.after_frames
        elif fault.after_seconds:
            self._later(entry, fault.after_seconds, lambda: self._begin(entry))
        else:
            self._begin(entry)
        self.entries[entry.number] = entry
        self._plan()
        return entry

    def remove(self, number: int) -> Entry:
        """Remove a fault, whether it has begun or not.

        Raises:
            KeyError: there is no fault with this number.
        """
        entry = self.entries.pop(number)
        self._end(entry)
        self._plan()
        return entry

    def clear(self) -> int:
        """Remove every fault and return their number."""
        numbers = list(self.entries)
        for number in numbers:
            self.remove(number)
        return len(numbers)

    def _end(self, entry: Entry) -> None:
        timer = self._timers.pop(entry.number, None)
        if timer is not None:
            timer.cancel()
        if entry.undo is not None:
            entry.undo()
            entry.undo = None

    def _later(self, entry: Entry, seconds: float, call: Callable[[], None]) -> None:
        self._timers[entry.number] = asyncio.get_running_loop().call_later(seconds, call)

    def _plan(self) -> None:
        waiting = [
            entry.begins_at_frame
            for entry in self.entries.values()
            if not entry.begun and entry.begins_at_frame is not None
        ]
        self._parts.hub.next_fault_at = min(waiting, default=_NEVER)

    def _begin_due(self) -> None:
        for entry in list(self.entries.values()):
            at = entry.begins_at_frame
            if not entry.begun and at is not None and at <= self._parts.hub.frames:
                self._begin(entry)
        self._plan()

    def _begin(self, entry: Entry) -> None:
        entry.begun = True
        entry.undo = self._effects.begin(entry)
        if isinstance(entry.fault, _PASSING) and entry.fault.seconds is not None:
            self._later(entry, entry.fault.seconds, lambda: self._end(entry))
        log.info("fault started", id=entry.number, **faults.as_fields(entry.fault))

    def _check(self, fault: AnyFault) -> None:
        """Raise ValueError where the fault is not possible with this market."""
        parts = self._parts
        match fault:
            case faults.SkipIds() | faults.RestartIds() | faults.OddRows() if parts.market is None:
                raise ValueError("this fault needs a generated market: the ids of a recording are fixed")
            case faults.Burst() if not parts.driver.paced:
                raise ValueError("burst needs a paced market: speed max is the upper limit already")
            case faults.SymbolFault(symbols=symbols) if not isinstance(fault, faults.List):
                unknown = [symbol for symbol in symbols if not self._will_be_listed(symbol)]
                if unknown:
                    raise ValueError(f"not listed here: {', '.join(unknown)}")
            case faults.ConnectionFault(connection=int(number)) if not (
                fault.after_frames or fault.after_seconds
            ):
                if number not in parts.sockets.connections:
                    raise ValueError(f"there is no connection {number}; GET /control/connections lists them")

    def _will_be_listed(self, symbol: str) -> bool:
        coming = (entry.fault for entry in self.entries.values())
        return symbol in self._parts.instruments or any(
            isinstance(fault, faults.List) and symbol in fault.symbols for fault in coming
        )
