"""Waiting for a condition, with a deadline.

The deadline costs nothing where the condition comes to hold, so it is long enough for a busy machine.
"""

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

T = TypeVar("T")

DEADLINE_SECONDS: Final = 120.0
LOOK_SECONDS: Final = 0.02


def until(
    look: Callable[[], T], what: str, seconds: float = DEADLINE_SECONDS, *, every: float = LOOK_SECONDS
) -> T:
    """The first answer of `look` that is true; it is asked again every so many seconds.

    Raises:
        AssertionError: there was none within `seconds`; names `what` was waited for.
    """
    deadline = time.monotonic() + seconds
    while not (found := look()):
        _still_time(deadline, what, seconds)
        time.sleep(every)
    return found


async def until_async(
    look: Callable[[], T | Awaitable[T]],
    what: str,
    seconds: float = DEADLINE_SECONDS,
    *,
    every: float = LOOK_SECONDS,
) -> T:
    """As `until`, while the event loop goes on; `look` may be a coroutine function.

    Raises:
        AssertionError: as `until`.
    """
    deadline = time.monotonic() + seconds
    while not (found := await _answer(look)):
        _still_time(deadline, what, seconds)
        await asyncio.sleep(every)
    return found


async def _answer(look: Callable[[], T | Awaitable[T]]) -> T:
    answer = look()
    return await answer if inspect.isawaitable(answer) else answer


def _still_time(deadline: float, what: str, seconds: float) -> None:
    if time.monotonic() > deadline:
        raise AssertionError(f"waited {seconds:g} s in vain for {what}")
