"""Waiting for a condition, with a deadline.

The deadline adds no time when the condition holds, so it is long enough for a busy machine.
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
    look: Callable[[], T],
    what: str | Callable[[], str],
    seconds: float = DEADLINE_SECONDS,
    *,
    every: float = LOOK_SECONDS,
) -> T:
    """Poll `look` until it returns a true value, and return that.

    Args:
        look: the condition.
        what: name of the condition, for the error text; a function of it, where the text has the state at the deadline.
        seconds: the deadline.
        every: polling interval.

    Raises:
        AssertionError: no true value within `seconds`.
    """
    deadline = time.monotonic() + seconds
    while not (found := look()):
        _still_time(deadline, what, seconds)
        time.sleep(every)
    return found


async def until_async(
    look: Callable[[], T | Awaitable[T]],
    what: str | Callable[[], str],
    seconds: float = DEADLINE_SECONDS,
    *,
    every: float = LOOK_SECONDS,
) -> T:
    """Poll as `until`, without blocking the event loop; `look` may be a coroutine function.

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


def _still_time(deadline: float, what: str | Callable[[], str], seconds: float) -> None:
    if time.monotonic() > deadline:
        text = what if isinstance(what, str) else what()
        raise AssertionError(f"timed out after {seconds:g} s waiting for {text}")
