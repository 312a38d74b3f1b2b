"""A session with a writer, without Kafka, for tests of the database side."""

import random
from collections.abc import Sequence
from typing import Any

from consumer_market import record

from marketfeed_consumers.errors import BatchError
from marketfeed_consumers.kafka.decode import Batch, batch_of
from marketfeed_consumers.kafka.leases import AssignedPartition
from marketfeed_consumers.planning.plan import Plan, plan, ranges_keys
from marketfeed_consumers.storage import quarantine
from marketfeed_consumers.storage.transaction import Owner, Stored
from marketfeed_consumers.storage.writer import Writer
from marketfeed_wire import BookTicker, Trade

TABLES = {"trades": "trades", "book": "book_tickers"}
Message = Trade | BookTicker | bytes


class Session:
    """The loop's use of a writer: acquires leases, loads, plans, submits; one partition per topic."""

    def __init__(
        self, url: str, name: str = "me", partition: int = 0, group: str = "group", **options: Any
    ) -> None:
        self.writer = Writer(url, rng=random.Random(1), **options)  # noqa: S311 - jitter
        self.name = name
        self.partition = partition
        self.next = dict.fromkeys(TABLES, 0)
        self.owner = Owner(group, {}, dict.fromkeys(TABLES, ""))

    def acquire_leases(self) -> None:
        assigned = [AssignedPartition(topic, self.partition, "", 0, 1_000_000) for topic in TABLES]
        leases = self.writer.submit_acquire(self.owner.group, self.name, assigned).result(20)
        epochs = {(c.topic, c.partition): c.epoch for c in leases}
        self.owner = Owner(self.owner.group, epochs, self.owner.topic_ids)
        self.next = {c.topic: c.next_offset for c in leases}

    @property
    def positions(self) -> dict[tuple[str, int], int]:
        return {(topic, self.partition): offset for topic, offset in self.next.items()}

    def batch(self, messages: Sequence[Message]) -> Batch:
        """Return `messages` as the records after the stored offset."""
        offsets, records = dict(self.next), []
        for message in messages:
            topic = "book" if isinstance(message, BookTicker) else "trades"
            records.append(record(message, offsets[topic], topic, self.partition))
            offsets[topic] += 1
        return batch_of(records, TABLES)

    def planned(self, batch: Batch) -> Plan:
        known = self.writer.submit_load(ranges_keys(batch)).result(20)
        return plan(batch, known, self.positions)

    def write(self, *messages: Message) -> Stored:
        batch = self.batch(messages)
        result = self.writer.submit_write(self.planned(batch), self.owner).result(30)
        self._advance(batch)
        return result

    def store_in_quarantine(
        self, error: BatchError, *messages: Message, wait: quarantine.Await = lambda future: future.result(30)
    ) -> tuple[Plan, Stored]:
        batch = self.batch(messages)
        context = quarantine.Context(
            TABLES, self.positions, self.owner, self.writer, wait, quarantine.RejectionCounter()
        )
        result = quarantine.store(batch, error, context)
        self._advance(batch)
        return result

    def _advance(self, batch: Batch) -> None:
        self.next |= {topic: offset for (topic, _), offset in batch.next_offsets.items()}
