"""Virtual time: one clock for the event loop and for the module `time`; nothing waits for real.

The loop asks its selector to wait until the next timer. Ours moves the clock instead of waiting. Threads are refused,
because their timing would be the machine's; what the code under test gives to a thread runs at once, in its place.
"""

import asyncio
import heapq
import selectors
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import Any, Final

START_SECONDS: Final = 1_790_000_000.0
"""The wall clock at the beginning of each session, in seconds since the epoch."""

TURN_SECONDS: Final = 1e-6
"""What a turn of the event loop takes at least."""

REAL_SECONDS: Final = time.perf_counter
"""A clock of the machine, for what a session costs."""

Handlers = dict[int, Callable[[], object]]
signal_handlers: ContextVar[Handlers] = ContextVar("signal_handlers")
"""Signal -> handler, of the process that the current task belongs to."""


class Clock:
    """The time of a session.

    Attributes:
        seconds: since the session began; the monotonic clock.
        step_seconds: how far the host's wall clock was set since then.
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        self.step_seconds = 0.0

    def true_us(self) -> int:
        """The true time, which the venue's clock shows, in microseconds since the epoch."""
        return int((START_SECONDS + self.seconds) * 1e6)

    def wall_us(self) -> int:
        """What the host's wall clock shows."""
        return int((START_SECONDS + self.seconds + self.step_seconds) * 1e6)

    def advance(self, seconds: float) -> None:
        """Let time pass while nothing runs: a call that blocks the process, or a process without processor."""
        self.seconds += max(0.0, seconds)

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Let the module `time` show this clock: the module and not names in it, so that nobody reads another one."""
        ours: dict[str, Callable[..., Any]] = {
            "monotonic": lambda: self.seconds,
            "monotonic_ns": lambda: int(self.seconds * 1e9),
            "time": lambda: self.wall_us() / 1e6,
            "time_ns": lambda: self.wall_us() * 1000,
            "sleep": self.advance,
        }
        kept = {name: getattr(time, name) for name in ours}
        for name, function in ours.items():
            setattr(time, name, function)
        try:
            yield
        finally:
            for name, function in kept.items():
                setattr(time, name, function)


class StuckError(Exception):
    """Nothing is scheduled, so nothing will ever happen again."""


class _Selector(selectors.BaseSelector):
    """Waits by moving the clock. Only the loop's own wake-up pipe registers here, and nobody writes to it."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
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
        if timeout is None:
            raise StuckError("no timer is set and no task is ready")
        # A turn of the loop takes time, as on a machine: who waits for less than a float can tell would never end.
        self._clock.seconds += max(timeout, TURN_SECONDS)
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop that jumps to whatever is due next."""

    def __init__(self, clock: Clock) -> None:
        self._virtual = clock
        super().__init__(_Selector(clock))
        self._clock_resolution = 1e-9

    def time(self) -> float:
        """The monotonic clock."""
        return self._virtual.seconds

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
        """Refuse; a thread's timing is the machine's, not the session's."""
        raise RuntimeError(f"a thread called for {callback}: its timing is not the session's")

    def add_signal_handler(  # type: ignore[override]
        self, sig: int, callback: Callable[..., Any], *args: Any
    ) -> None:
        """Remember the handler of the process that asks."""
        signal_handlers.get()[sig] = partial(callback, *args)

    def remove_signal_handler(self, sig: int) -> bool:
        """Forget it."""
        return signal_handlers.get().pop(sig, None) is not None


class Pipe:
    """Calls that fall due in the order in which they were put in, by one timer: heaps of timers keep no such order."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._calls: list[tuple[float, int, Callable[[], None]]] = []
        self._number = 0
        self._timer: asyncio.TimerHandle | None = None

    def put(self, due: float, call: Callable[[], None]) -> None:
        """Call at `due`, and after what was put in before for the same time."""
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
