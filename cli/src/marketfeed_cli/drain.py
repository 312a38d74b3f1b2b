"""Orderly shutdown of a run: all sent messages are received, acknowledged and stored before they are counted.

1. The generated market is halted (a recording has ended); the worker receives the messages in flight.
2. The worker is stopped: it publishes the received messages and exits.
3. The consumers store all messages up to the log end offsets.
4. The venue's ledger, the services' counters and the database are collected for comparison.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from marketfeed_cli import facts
from marketfeed_cli.facts import FinalStatus
from marketfeed_cli.observe import Ledger
from marketfeed_cli.process import POLL_SECONDS
from marketfeed_cli.report import Facts
from marketfeed_cli.stack import Stack
from marketfeed_service.errors import StartupError
from marketfeed_wire.status import ConsumerStatus, WorkerStatus

SETTLE_SECONDS: Final = 5.0
"""Without progress for this long, messages that were not received are lost."""
STALLED_SECONDS: Final = 60.0
"""Without a stored message for this long despite a lag, the consumers are stalled."""
DRAIN_SECONDS: Final = 60.0


class StallTimer:
    """Time since a counter last changed; `monotonic` is a clock in seconds."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._since = monotonic()
        self._number = -1

    def seconds(self, number: int, *, reset: bool = False) -> float:
        """Return the seconds since `number` last changed; `reset` restarts the timer."""
        now = self._monotonic()
        if number != self._number or reset:
            self._number, self._since = number, now
        return now - self._since


async def drain(stack: Stack) -> Facts:
    """Stop the worker in order and collect the facts. Consumers, database and broker keep running.

    Raises:
        PartFailed: A process exited unexpectedly, or the worker could not publish the received messages.
        StartupError: The consumers are stalled.
    """
    if stack.market.kind == "generated":
        await stack.set_market("halt")
    ledger = await _settled(stack, is_final=await _is_final(stack))
    worker = await _with_final_acknowledgements(stack, await _stop_worker(stack))
    await _wait_until_stored(stack)
    final = FinalStatus(
        ledger=ledger,
        worker=worker,
        consumers=await stack.consumer_statuses(),
        trades_topic=stack.trades_topic,
        book_topic=stack.book_topic,
        started_us=stack.started_us,
    )
    return await facts.collect(stack.dsn, final)


def caught_up(worker: WorkerStatus, ledger: Ledger | None) -> bool:
    """Return whether the worker has received all messages in the `ledger` and Kafka has acknowledged them.

    Without a `ledger`, return whether the worker has no open gap.
    """
    for symbol, received in worker.symbols.items():
        if received.missing:
            return False
        sent = ledger.symbols.get(symbol) if ledger else None
        if sent is None:
            continue
        if sent.last_trade_id is not None and (received.last_trade_id or 0) < sent.last_trade_id:
            return False
        if received.quotes < sent.quotes:
            return False
    return ledger is None or worker.pending == 0


def is_stored(consumers: Sequence[ConsumerStatus], ends: dict[str, dict[int, int]]) -> bool:
    """Return whether every committed offset has reached the log end offset; `ends` is topic -> partition -> offset."""
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
    """Return whether the venue's ledger is final, so that it can be compared."""
    if stack.market.kind == "generated":
        return True
    ledger = await stack.ledger()
    return ledger is not None and ledger.finished


async def _settled(stack: Stack, *, is_final: bool) -> Ledger | None:
    """Wait until the worker has received everything or makes no progress; return the final ledger, if there is one."""
    timer = StallTimer()
    while True:
        stack.parts.check()
        worker, ledger = await stack.worker_status(), await stack.ledger() if is_final else None
        if worker is not None and (ledger is not None or not is_final):
            if caught_up(worker, ledger):
                return ledger
            progress = sum(each.missing for each in worker.symbols.values())
            if is_final:
                progress += sum(worker.received.values()) + sum(worker.acknowledged.values())
            if timer.seconds(progress, reset=is_connecting(worker)) > SETTLE_SECONDS:
                return ledger
        await asyncio.sleep(POLL_SECONDS)


def is_connecting(worker: WorkerStatus) -> bool:
    """Return whether a connection of the worker is reconnecting, so that more messages may arrive."""
    return any(connection.state in ("connecting", "waiting") for connection in worker.connections)


async def _stop_worker(stack: Stack) -> WorkerStatus:
    """Stop the worker and return its last status; raise if in-flight messages were not acknowledged."""
    if stack.worker is None:
        raise AssertionError("the worker is started before the drain")
    part = stack.worker.part
    last = await stack.parts.until(stack.worker_status, seconds=SETTLE_SECONDS, what="the worker's status")
    stopping = asyncio.create_task(stack.parts.stop([part], seconds=DRAIN_SECONDS), name="stop worker")
    while not stopping.done():
        last = await stack.worker_status() or last
        await asyncio.sleep(POLL_SECONDS / 5)
    await stopping
    if part.exit_code != 0:
        raise part.failure()
    return last


async def _with_final_acknowledgements(stack: Stack, last: WorkerStatus) -> WorkerStatus:
    """Return `last` with the messages that Kafka acknowledged after it.

    Exit code 0 means that all in-flight messages were acknowledged; the log end offsets give their number.
    """
    acknowledged = dict(last.acknowledged)
    for topic in stack.stored_topics:
        known = acknowledged.get(topic, 0)
        written = await stack.kafka.messages(topic) - stack.messages_before[topic]
        if known < written <= known + last.pending:  # otherwise the topic has other producers
            acknowledged[topic] = written
    return msgspec.structs.replace(last, acknowledged=acknowledged, pending=0)


async def _wait_until_stored(stack: Stack) -> None:
    ends = {topic: await stack.kafka.end_offsets(topic) for topic in stack.stored_topics}
    timer = StallTimer()
    while True:
        stack.parts.check()
        consumers = list((await stack.consumer_statuses()).values())
        if is_stored(consumers, ends):
            return
        stored = sum(each.next_offset for consumer in consumers for each in consumer.partitions)
        if timer.seconds(stored) > STALLED_SECONDS:
            reasons = "; ".join(consumer.reason for consumer in consumers if consumer.reason)
            raise StartupError(
                f"the consumers have stored nothing for {STALLED_SECONDS:g} s: {reasons or 'all of them are ready'}"
            )
        await asyncio.sleep(POLL_SECONDS)
