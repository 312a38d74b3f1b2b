"""Virtual time: one clock for the event loop and for the module `time`; no real time passes.

Where asyncio's loop waits for the next timer, this one advances the clock. Threads are rejected, because their timing
would be the machine's; a call that the code under test runs in a thread runs at once instead.
"""

import asyncio
import heapq
import selectors
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import Context, ContextVar, copy_context
from functools import partial
from itertools import count
from typing import Any, Final

START_SECONDS: Final = 1_790_000_000.0
"""The wall clock at the beginning of each session, in seconds since the epoch."""

TURN_SECONDS: Final = 1e-6
"""Minimum duration of a turn of the event loop."""
_RESOLUTION_SECONDS: Final = 1e-9
"""Tolerance within which a call counts as due."""

_SHOWN_SECONDS: Final = 1e-3
"""Tolerance within which two times are equal: times have microseconds."""

REAL_SECONDS: Final = time.perf_counter
"""Clock of the machine, for the cost of a session."""

Handlers = dict[int, Callable[[], object]]
signal_handlers: ContextVar[Handlers] = ContextVar("signal_handlers")
"""Signal -> handler of the current task's process."""


class Clock:
    """The time of a session.

    Attributes:
        seconds: seconds since the session began; the monotonic clock.
        step_seconds: offset of the host's wall clock, set since then.
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        self.step_seconds = 0.0
        self._steps: list[tuple[float, float]] = [(0.0, 0.0)]
        """Times at which the wall clock was set, and its offset from the true time."""

    def true_us(self) -> int:
        """Return the true time, which is the venue's clock, in microseconds since the epoch."""
        return int((START_SECONDS + self.seconds) * 1e6)

    def wall_us(self) -> int:
        """Return the time of the host's wall clock."""
        return int((START_SECONDS + self.seconds + self.step_seconds) * 1e6)

    def step(self, seconds: float) -> None:
        """Set the host's wall clock by `seconds`."""
        self.step_seconds += seconds
        self._steps.append((self.seconds, self.step_seconds))

    def shown_at(self, wall_us: int, until: float) -> float | None:
        """Return the last time before `until` at which the host's wall clock showed `wall_us`, or None."""
        for number in reversed(range(len(self._steps))):
            begins, step = self._steps[number]
            ends = self._steps[number + 1][0] if number + 1 < len(self._steps) else until
            seconds = wall_us / 1e6 - START_SECONDS - step
            if begins - _SHOWN_SECONDS <= seconds <= min(ends, until) + _SHOWN_SECONDS:
                return seconds
        return None

    def advance(self, seconds: float) -> None:
        """Advance the time while nothing runs: a call that blocks the process, or a frozen process."""
        self.seconds += max(0.0, seconds)

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Patch the module `time` with this clock: the module, not names in it, so that no code reads another one."""
        patched: dict[str, Callable[..., Any]] = {
            "monotonic": lambda: self.seconds,
            "monotonic_ns": lambda: int(self.seconds * 1e9),
            "time": lambda: self.wall_us() / 1e6,
            "time_ns": lambda: self.wall_us() * 1000,
            "sleep": self.advance,
        }
        kept = {name: getattr(time, name) for name in patched}
        for name, function in patched.items():
            setattr(time, name, function)
        try:
            yield
        finally:
            for name, function in kept.items():
                setattr(time, name, function)


class StuckError(Exception):
    """Nothing is scheduled: the session is stuck."""


class _NoSelector(selectors.BaseSelector):
    """A selector without I/O: the loop's own wake-up pipe registers here, and nothing writes to it."""

    def __init__(self) -> None:
        self._keys: dict[Any, selectors.SelectorKey] = {}

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        key = selectors.SelectorKey(fileobj, fileobj, events, data)
        self._keys[fileobj] = key
        return key

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return self._keys.pop(fileobj)

    def get_map(self) -> dict[Any, selectors.SelectorKey]:
        return self._keys

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        raise NotImplementedError(f"no wait is possible in virtual time, not for {timeout} s")


class _Call(asyncio.TimerHandle):
    """A call that is due at `due`; like asyncio's handles, without their debug data."""

    __slots__ = ("_arguments", "_call", "_due", "_is_off", "_within")

    def __init__(
        self, due: float, call: Callable[..., object], arguments: tuple[Any, ...], context: Context | None
    ) -> None:
        # Not asyncio's __init__: half of a session's time is spent in its event loop, and much of it there.
        self._due = due
        self._call = call
        self._arguments = arguments
        self._within = copy_context() if context is None else context
        self._is_off = False

    def cancel(self) -> None:
        self._is_off = True
        self._call, self._arguments = _do_nothing, ()

    def cancelled(self) -> bool:
        return self._is_off

    def when(self) -> float:
        return self._due

    def __repr__(self) -> str:
        return f"<call of {self._call!r} at {self._due}>"


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop that advances to the next due call; calls due at one time run in the order of their scheduling.

    Timers, turns and the ready queue are its own: asyncio's compare handles in Python and poll a selector each turn.
    """

    def __init__(self, clock: Clock) -> None:
        self._virtual = clock
        self._soon: deque[_Call] = deque()
        self._timers: list[tuple[float, int, _Call]] = []
        self._numbers = count()
        super().__init__(_NoSelector())

    def time(self) -> float:
        """Return the monotonic clock."""
        return self._virtual.seconds

    def call_soon(  # type: ignore[override]
        self, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.Handle:
        """Call in the next turn."""
        call = _Call(self._virtual.seconds, callback, args, context)
        self._soon.append(call)
        return call

    def call_at(  # type: ignore[override]
        self, when: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """Call when the clock shows `when`."""
        call = _Call(when, callback, args, context)
        heapq.heappush(self._timers, (when, next(self._numbers), call))
        return call

    def call_later(  # type: ignore[override]
        self, delay: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """Call after `delay` seconds."""
        return self.call_at(self._virtual.seconds + delay, callback, *args, context=context)

    def _run_once(self) -> None:
        """Run one turn: advance the clock to the next due call, and run all due calls. asyncio calls it in a loop."""
        soon, timers, clock = self._soon, self._timers, self._virtual
        while timers and timers[0][2]._is_off:
            heapq.heappop(timers)
        if not soon and not timers:
            raise StuckError("no timer is set and no task is ready")
        wait = 0.0 if soon else timers[0][0] - clock.seconds
        # A turn of the loop takes time, as on a machine: a wait below a float's resolution would never end.
        clock.seconds += max(wait, TURN_SECONDS)
        until = clock.seconds + _RESOLUTION_SECONDS
        while timers and timers[0][0] < until:
            soon.append(heapq.heappop(timers)[2])
        for _ in range(len(soon)):
            call = soon.popleft()
            if call._is_off:
                continue
            try:
                call._within.run(call._call, *call._arguments)
            except (SystemExit, KeyboardInterrupt):
                raise
            except BaseException as error:  # noqa: BLE001 - as asyncio's own loop
                self.call_exception_handler({"message": f"exception in {call!r}", "exception": error})

    def run_in_executor(  # type: ignore[override]
        self, _executor: Any, function: Callable[..., Any], *arguments: Any
    ) -> Any:
        """Run `function` at once; where it is a model's coroutine function, wait for its coroutine."""
        future = self.create_future()
        try:
            result = function(*arguments)
        except BaseException as error:  # noqa: BLE001 - a future carries whatever was raised
            future.set_exception(error)
            return future
        if asyncio.iscoroutine(result):
            return self.create_task(result)
        future.set_result(result)
        return future

    def call_soon_threadsafe(  # type: ignore[override]
        self, callback: Callable[..., object], *_args: Any, **_words: Any
    ) -> asyncio.Handle:
        """Raise: a thread's timing is the machine's, not the session's."""
        raise RuntimeError(f"a thread called for {callback}: its timing is not the session's")

    def add_signal_handler(  # type: ignore[override]
        self, sig: int, callback: Callable[..., Any], *args: Any
    ) -> None:
        """Store the handler of the current process."""
        signal_handlers.get()[sig] = partial(callback, *args)

    def remove_signal_handler(self, sig: int) -> bool:
        """Forget it."""
        return signal_handlers.get().pop(sig, None) is not None


class Pipe:
    """Calls that become due in the order of their insertion, by one timer: heaps of timers keep no such order."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._calls: list[tuple[float, int, Callable[[], None]]] = []
        self._number = 0
        self._timer: asyncio.TimerHandle | None = None

    def put(self, due: float, call: Callable[[], None]) -> None:
        """Call at `due`, and after earlier insertions for the same time."""
        self._number += 1
        heapq.heappush(self._calls, (due, self._number, call))
        if self._timer is None or self._timer.when() > due:
            self._arm()

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(self._calls[0][0], self._run) if self._calls else None

    def _run(self) -> None:
        self._timer = None
        now = self._loop.time()
        while self._calls and self._calls[0][0] <= now:
            heapq.heappop(self._calls)[2]()
        self._arm()


def _do_nothing(*_: object) -> None:
    """Do nothing: a cancelled call."""
