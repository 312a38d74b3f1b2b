"""The orderly end of a run: everything that was sent is received, acknowledged, stored, and only then counted.

1. The generated market is halted (a recording is at its end); the worker takes what is on its way.
2. The worker is told to stop: it delivers what it has read, and ends.
3. The consumers store everything up to where the topics end.
4. What the venue produced, what the services counted and what the database holds are put side by side.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from marketfeed_chassis.errors import StartupError
from marketfeed_cli import evidence
from marketfeed_cli.evidence import Testimony
from marketfeed_cli.observe import Ledger
from marketfeed_cli.process import POLL_SECONDS
from marketfeed_cli.report import Facts
from marketfeed_cli.stack import Stack
from marketfeed_wire.status import ConsumerStatus, WorkerStatus

STILL_SECONDS: Final = 5.0
"""When nothing has moved for this long, what has not come is lost."""
STUCK_SECONDS: Final = 60.0
"""When the consumers have stored nothing for this long although there is something to store, they are stuck."""
DRAIN_SECONDS: Final = 60.0


class Stillness:
    """Tells for how long a number has not changed; `monotonic` is a clock in seconds."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._since = monotonic()
        self._number = -1

    def seconds(self, number: int, *, held: bool = False) -> float:
        """Seconds since `number` last was another one; `held` starts anew as if it were another."""
        now = self._monotonic()
        if number != self._number or held:
            self._number, self._since = number, now
        return now - self._since


async def conclude(stack: Stack) -> Facts:
    """End the reading in order and collect the facts. Consumers, database and broker stay up.

    Raises:
        PartFailed: a part ended by itself, or the worker could not deliver what it had read.
        StartupError: the consumers do not get on.
    """
    if stack.market.kind == "generated":
        await stack.set_market("halt")
    ledger = await _settled(stack, is_final=await _is_final(stack))
    worker = await _with_last_answers(stack, await _stop_worker(stack))
    await _stored_everything(stack)
    said = Testimony(
        ledger=ledger,
        worker=worker,
        consumers=await stack.consumer_statuses(),
        trades_topic=stack.trades_topic,
        book_topic=stack.book_topic,
        started_us=stack.started_us,
    )
    return await evidence.collect(stack.dsn, said)


def caught_up(worker: WorkerStatus, ledger: Ledger | None) -> bool:
    """Whether the worker lacks nothing of what the venue produced of its symbols, and Kafka has acknowledged it all.

    Without a `ledger`: whether it lacks nothing that it knows of.
    """
    for symbol, read in worker.symbols.items():
        if read.missing:
            return False
        sent = ledger.symbols.get(symbol) if ledger else None
        if sent is None:
            continue
        if sent.last_trade_id is not None and (read.last_trade_id or 0) < sent.last_trade_id:
            return False
        if read.quotes < sent.quotes:
            return False
    return ledger is None or worker.pending == 0


def is_stored(consumers: Sequence[ConsumerStatus], ends: dict[str, dict[int, int]]) -> bool:
    """Whether every partition is stored up to its end; `ends` is topic -> partition -> offset."""
    stored = {
        (each.topic, each.partition): each.next_offset
        for consumer in consumers
        for each in consumer.partitions
    }
    return all(
        stored.get((topic, partition), 0) >= end
        for topic, partitions in ends.items()
        for partition, end in partitions.items()
    )


async def _is_final(stack: Stack) -> bool:
    """Whether the venue produces nothing any more, so that its account can be compared with."""
    if stack.market.kind == "generated":
        return True
    ledger = await stack.ledger()
    return ledger is not None and ledger.finished


async def _settled(stack: Stack, *, is_final: bool) -> Ledger | None:
    """What the venue produced, once the worker has it all or has stopped getting more; None when it goes on."""
    stillness = Stillness()
    while True:
        stack.parts.check()
        worker, ledger = await stack.worker_status(), await stack.ledger() if is_final else None
        if worker is not None and (ledger is not None or not is_final):
            if caught_up(worker, ledger):
                return ledger
            moved = sum(each.missing for each in worker.symbols.values())
            if is_final:
                moved += sum(worker.received.values()) + sum(worker.acknowledged.values())
            if stillness.seconds(moved, held=is_connecting(worker)) > STILL_SECONDS:
                return ledger
        await asyncio.sleep(POLL_SECONDS)


def is_connecting(worker: WorkerStatus) -> bool:
    """Whether a connection of the worker is down and will be up again, so that more may come."""
    return any(connection.state in ("connecting", "waiting") for connection in worker.connections)


async def _stop_worker(stack: Stack) -> WorkerStatus:
    """Stop the worker; the last it said. What it had handed to Kafka then is acknowledged, or this raises."""
    if stack.worker is None:
        raise AssertionError("the worker is brought up before the end")
    part = stack.worker.part
    last = await stack.parts.until(stack.worker_status, seconds=STILL_SECONDS, what="the worker's report")
    stopping = asyncio.create_task(stack.parts.stop([part], seconds=DRAIN_SECONDS), name="stop worker")
    while not stopping.done():
        last = await stack.worker_status() or last
        await asyncio.sleep(POLL_SECONDS / 5)
    await stopping
    if part.exit_code != 0:
        raise part.failure()
    return last


async def _with_last_answers(stack: Stack, last: WorkerStatus) -> WorkerStatus:
    """`last`, with what Kafka acknowledged after it was told: the exit code 0 says that it did, the topics how much."""
    acknowledged = dict(last.acknowledged)
    for topic in stack.stored_topics:
        told = acknowledged.get(topic, 0)
        written = await stack.kafka.messages(topic) - stack.messages_before[topic]
        if told < written <= told + last.pending:  # otherwise others write to that topic as well
            acknowledged[topic] = written
    return msgspec.structs.replace(last, acknowledged=acknowledged, pending=0)


async def _stored_everything(stack: Stack) -> None:
    ends = {topic: await stack.kafka.end_offsets(topic) for topic in stack.stored_topics}
    stillness = Stillness()
    while True:
        stack.parts.check()
        consumers = list((await stack.consumer_statuses()).values())
        if is_stored(consumers, ends):
            return
        stored = sum(each.next_offset for consumer in consumers for each in consumer.partitions)
        if stillness.seconds(stored) > STUCK_SECONDS:
            reasons = "; ".join(consumer.reason for consumer in consumers if consumer.reason)
            raise StartupError(
                f"the consumers have stored nothing for {STUCK_SECONDS:g} s: {reasons or 'they say that all is well'}"
            )
        await asyncio.sleep(POLL_SECONDS)
