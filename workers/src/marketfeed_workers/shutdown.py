"""Stop signals, and work that is cancelled by them."""

import asyncio
import signal
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager


async def unless_stopped(stop: asyncio.Event, work: Coroutine[object, object, None]) -> bool:
    """Return whether `work` finished before `stop` was set; cancel it otherwise."""
    doing = asyncio.create_task(work, name="start")
    stopping = asyncio.create_task(stop.wait(), name="stop")
    try:
        await asyncio.wait({doing, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if doing.done():
            doing.result()
        return doing.done()
    finally:
        stopping.cancel()
        doing.cancel()
        await asyncio.wait({doing, stopping})


@contextmanager
def stop_signals(stop: asyncio.Event) -> Iterator[None]:
    """Set `stop` at the first SIGTERM or SIGINT while the block runs; the next one ends the process."""
    loop = asyncio.get_running_loop()
    numbers = (signal.SIGTERM, signal.SIGINT)

    def remove_handlers() -> None:
        for number in numbers:
            loop.remove_signal_handler(number)

    def on_signal() -> None:
        remove_handlers()
        stop.set()

    for number in numbers:
        loop.add_signal_handler(number, on_signal)
    try:
        yield
    finally:
        remove_handlers()
