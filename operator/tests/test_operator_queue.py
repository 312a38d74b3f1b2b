"""Work queue: one worker per key, no duplicates, failures with backoff. The clock is the test's."""

import asyncio
import random

import pytest
from operator_support import Clock

from marketfeed_operator.engine.queue import WorkQueue


@pytest.fixture
def clock() -> Clock:
    return Clock(at=0)


@pytest.fixture
def queue(clock: Clock) -> WorkQueue[str]:
    return WorkQueue(now=clock, chance=random.Random(1), first_seconds=1, cap_seconds=8)  # noqa: S311 - jitter


async def due(queue: WorkQueue[str]) -> str | None:
    """Return the key that is due now; None for none."""
    try:
        return (await asyncio.wait_for(queue.get(), 0.02))[0]
    except TimeoutError:
        return None


async def test_queue_key_added_several_times_is_processed_once(queue):
    for _ in range(5):
        await queue.add("a")
    assert (await due(queue), await due(queue)) == ("a", None)
    await queue.done("a")
    assert await due(queue) is None


async def test_queue_key_added_during_processing_is_processed_again_by_one_worker(queue):
    await queue.add("a")
    assert await due(queue) == "a"
    await queue.add("a")
    await queue.add("a")
    assert await due(queue) is None
    await queue.done("a")
    assert (await due(queue), await due(queue)) == ("a", None)


async def test_queue_earlier_schedule_is_kept(queue, clock):
    await queue.add("a", after_seconds=10)
    await queue.add("a", after_seconds=5)
    await queue.add("a", after_seconds=20)
    assert await due(queue) is None
    clock.seconds = 5
    assert (await due(queue), len(queue)) == ("a", 0)
    await queue.done("a")
    clock.seconds = 30
    assert await due(queue) is None


async def test_queue_backoff_grows_to_its_cap_and_is_reset_by_success(queue, clock):
    waits = []
    await queue.add("a")
    for _ in range(200):
        clock.seconds += 1000
        assert await due(queue) == "a"
        waits.append(await queue.failed("a"))
    assert all(wait <= bound for wait, bound in zip(waits, (1, 2, 4, 8), strict=False))
    assert 4 < max(waits) <= 8
    clock.seconds += 1000
    assert await due(queue) == "a"
    await queue.done("a", again_after_seconds=0)
    assert await due(queue) == "a"
    assert await queue.failed("a") <= 1


async def test_queue_retry_after_is_respected(queue, clock):
    await queue.add("a")
    assert await due(queue) == "a"
    assert await queue.failed("a", at_least_seconds=60) == 60
    clock.seconds = 59
    assert await due(queue) is None
    clock.seconds = 60
    assert await due(queue) == "a"


async def test_queue_event_during_backoff_is_processed_at_once(queue):
    await queue.add("a")
    assert await due(queue) == "a"
    await queue.failed("a", at_least_seconds=60)
    await queue.add("a")
    assert await due(queue) == "a"


async def test_queue_oldest_key_comes_first(queue, clock):
    await queue.add("b", after_seconds=1)
    await queue.add("a", after_seconds=2)
    clock.seconds = 3
    assert (await queue.get(), await queue.get()) == (("b", 2.0), ("a", 1.0))


async def test_queue_waiting_worker_is_woken_by_a_new_key(queue):
    waiting = asyncio.create_task(queue.get())
    await asyncio.sleep(0)
    await queue.add("a")
    assert (await waiting)[0] == "a"
