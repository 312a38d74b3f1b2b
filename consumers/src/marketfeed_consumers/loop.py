"""The loop: poll, decode, plan, hand over to the writer, tell Kafka afterwards.

One thread runs it; the writer's thread works on the batch before meanwhile::

    loop      read+decode 3 │ plan 3 │ read+decode 4 │ plan 4 │ …
    writer       transaction 2       │    transaction 3       │ …

Every change of what is ours ends with nothing in flight: partitions that are taken away are stored up to the last
batch handed over, within the drain deadline, and what was only read is left to the next owner. No transaction is
open while Kafka is waited for.
"""

import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from confluent_kafka import Consumer as KafkaConsumer
from confluent_kafka import KafkaError, KafkaException, TopicPartition
from confluent_kafka import Message as Record
from confluent_kafka.admin import AdminClient

from marketfeed_chassis import logs
from marketfeed_chassis.errors import ServiceError, StartupError
from marketfeed_chassis.kafka import client_config
from marketfeed_consumers import careful, kafka
from marketfeed_consumers.batching import CHUNK_ROWS, Bounds, Filling, is_due, is_full, wait_seconds
from marketfeed_consumers.decode import Batch, Partition
from marketfeed_consumers.errors import Abandoned, BatchError
from marketfeed_consumers.plan import Plan, mark_keys, plan
from marketfeed_consumers.settings import ConsumerSettings
from marketfeed_consumers.state import Progress, State
from marketfeed_consumers.transaction import Owner
from marketfeed_consumers.writer import Stored, Writer

log = logs.get(__name__)

_IN_FLIGHT: Final = 2
"""Plans at the writer: one it works on and one it can begin at once."""
_IDLE_SECONDS: Final = 0.1
_PAUSE_AFTER_SECONDS: Final = 1.0
"""How long the writer may hold the loop up before Kafka is told to pause: pausing throws away what was fetched."""
_HINT_SECONDS: Final = 1.0
_CLAIM_SECONDS: Final = 120.0
"""Less than max.poll.interval.ms (300 s), within which Kafka waits for a rebalance callback."""
T = TypeVar("T")


@dataclass(slots=True)
class Flight:
    """A batch at the writer."""

    batch: Batch
    plan: Plan
    future: "Future[Stored]"


class Loop:
    """Moves records from Kafka to the writer until it is told to stop."""

    def __init__(
        self,
        settings: ConsumerSettings,
        writer: Writer,
        state: State,
        *,
        name: str,
        observe: Callable[[Plan, Stored], None] = lambda _plan, _stored: None,
    ) -> None:
        self._settings = settings
        self._writer = writer
        self._state = state
        self._name = name
        self._observe = observe
        self._tables = settings.tables_by_topic()
        self._bounds = Bounds(
            settings.batch_max_rows, settings.batch_max_ms / 1000, settings.batch_linger_ms / 1000
        )
        self._kafka = KafkaConsumer(kafka.consumer_config(settings, self._kafka_error))
        self._admin = AdminClient({**client_config(settings), "log_level": 2})
        self._topic_ids: dict[str, str] = {}
        self._known = state.known
        self._positions: dict[Partition, int] = {}
        self._batch = Batch()
        self._batch_began = 0.0
        self._caught_up = True
        self._flights: deque[Flight] = deque()
        self._paused = False
        self._failure: ServiceError | None = None
        self._hints: dict[Partition, int] = {}
        self._hinted = 0.0
        self._said: set[str] = set()
        self._stopping = False
        self._stop_at = math.inf
        self._waiting_since = 0.0
        self._nested = False
        self._interrupted = False

    def stop(self) -> None:
        """Make `run` store what was read and return, within the drain deadline. May be called from a signal handler."""
        self._stop_at = time.monotonic() + self._settings.drain_deadline_seconds
        self._stopping = True

    def run(self) -> None:
        """Work until stopped, then drain.

        Raises:
            Fenced, StartupError: this process must not go on; what was not stored is dropped.
        """
        self._kafka.subscribe(
            list(self._settings.topics()),
            on_assign=self._on_assign,
            on_revoke=self._on_revoke,
            on_lost=self._on_lost,
        )
        try:
            while not self._stopping:
                self._step()
            self._drain()
        finally:
            self._writer.give_up()
            self._kafka.close()

    def _step(self) -> None:
        self._state.last_step = time.monotonic()
        self._collect()
        filling = self._filling()
        if not is_full(filling, self._bounds) and len(self._flights) <= _IN_FLIGHT:
            self._read(filling)
        elif len(self._flights) >= _IN_FLIGHT:
            self._wait_for_writer()
        # Otherwise the batch is full and the writer has got done meanwhile: it is due now.
        if len(self._flights) < _IN_FLIGHT and is_due(self._filling(), self._bounds):
            self._hand_over()
        self._hint()

    def _filling(self) -> Filling:
        return Filling(
            rows=len(self._batch.records),
            size_bytes=self._batch.size_bytes,
            age_seconds=time.monotonic() - self._batch_began if self._batch.records else 0.0,
            caught_up=self._caught_up,
            writer_idle=not self._flights,
        )

    # Reading

    def _read(self, filling: Filling) -> None:
        records: list[Record] = []
        if filling.rows == 0:
            # Returns with the first record, where `consume` would wait for a whole chunk.
            first = self._kafka.poll(
                _IDLE_SECONDS if filling.writer_idle else wait_seconds(filling, self._bounds)
            )
            if self._failure is not None:
                raise self._failure
            if first is None:
                self._caught_up = True
                return
            records.append(first)
        asked = min(CHUNK_ROWS, self._bounds.max_rows - filling.rows) - len(records)
        if asked > 0:
            records += self._kafka.consume(asked, wait_seconds(filling, self._bounds))
        self._caught_up = len(records) < asked
        self._take(records)

    def _take(self, records: Sequence[Record]) -> None:
        if self._failure is not None:
            raise self._failure
        good = [record for record in records if record.error() is None]
        if len(good) != len(records):
            for record in records:
                self._check(record.error())
        if good:
            if not self._batch.records:
                self._batch_began = time.monotonic()
            self._batch.add(good, self._tables)

    def _check(self, error: KafkaError | None) -> None:
        if error is None:
            return
        if error.code() in (KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE):
            raise StartupError(
                f"Kafka does not have the stored offset any more ({error.str()}); to go on with what it has: "
                "marketfeed-consumer reset-offsets --topic TOPIC --to earliest"
            )
        if error.fatal() or error.code() in (
            KafkaError.TOPIC_AUTHORIZATION_FAILED,
            KafkaError.GROUP_AUTHORIZATION_FAILED,
        ):
            raise StartupError(f"Kafka refuses: {error.str()}")
        if error.code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
            if error.str() not in self._said:  # comes again with each refresh of the metadata
                self._said.add(error.str())
                log.warning("waiting for a topic that does not exist yet", reason=error.str())
            return
        log.warning("Kafka says", reason=error.str(), code=error.name())

    def _kafka_error(self, error: KafkaError) -> None:
        if error.code() == KafkaError._ALL_BROKERS_DOWN:
            self._state.kafka_trouble = f"no Kafka broker can be reached: {error.str()}"
        log.warning("Kafka client", reason=error.str(), code=error.name())

    # Storing

    def _hand_over(self) -> None:
        batch, self._batch = self._batch, Batch()
        try:
            self._load_unknown(batch)
        except Abandoned:
            self._rewind()
            return
        made = plan(batch, self._known, self._positions)
        self._known.update(made.after())
        self._positions.update(batch.next_offsets)
        self._flights.append(Flight(batch, made, self._writer.submit_write(made, self._owner())))

    def _load_unknown(self, batch: Batch) -> None:
        unknown = [key for key in mark_keys(batch) if key not in self._known]
        if unknown:
            loaded = self._await(self._writer.submit_load(unknown))
            self._known.update(loaded)

    def _owner(self) -> Owner:
        epochs = {partition: progress.epoch for partition, progress in self._state.partitions.items()}
        return Owner(self._settings.kafka_group, epochs, self._topic_ids)

    def _collect(self) -> None:
        """Take note of what the writer has finished."""
        while self._flights and self._flights[0].future.done():
            flight = self._flights.popleft()
            try:
                result = flight.future.result()
            except BatchError as error:
                self._redo([flight.batch, *(later.batch for later in self._flights)], error)
            else:
                self._note_stored(flight.plan, result)
                self._resume()

    def _redo(self, batches: Sequence[Batch], first_error: BatchError) -> None:
        """Store `batches`, the first of which failed, one after the other and from fresh knowledge."""
        wait([flight.future for flight in self._flights])
        self._flights.clear()
        self._forget()
        if isinstance(first_error, Abandoned):
            self._rewind()
            return
        log.info(
            "planning again", reason=str(first_error) or type(first_error).__name__, batches=len(batches)
        )
        for batch in batches:
            self._store_carefully(batch, first_error)

    def _store_carefully(self, batch: Batch, error: BatchError) -> None:
        try:
            context = careful.Context(self._tables, self._positions, self._owner(), self._writer, self._await)
            made, result = careful.store(batch, error, context)
        except Abandoned:
            self._rewind()
            return
        self._known.update(made.after())
        self._positions.update(batch.next_offsets)
        self._note_stored(made, result)

    def _note_stored(self, made: Plan, result: Stored) -> None:
        self._state.stored(made, result)
        self._observe(made, result)
        for letter in made.dead_letters:
            log.warning(
                "dead letter",
                topic=letter.topic,
                partition=letter.partition,
                offset=letter.kafka_offset,
                reason=letter.reason,
            )
        for topic, number, _, next_offset in made.steps:
            self._hints[topic, number] = next_offset

    # Waiting

    def _wait_for_writer(self) -> None:
        """Let the writer finish something; when that takes long, keep our place in the group meanwhile."""
        self._look_after_kafka(self._flights[0].future)

    def _await(self, future: "Future[T]") -> T:
        """The writer's answer, waited for in the middle of a batch.

        Raises:
            Abandoned: partitions were taken away meanwhile, or the drain deadline has passed.
        """
        self._nested = True
        try:
            while not future.done():
                self._look_after_kafka(future)
                if time.monotonic() > self._stop_at:
                    self._writer.give_up()
        finally:
            self._nested = False
            self._waiting_since = 0.0
        interrupted, self._interrupted = self._interrupted, False
        if interrupted:
            raise Abandoned
        return future.result()

    def _look_after_kafka(self, future: "Future[Any]") -> None:
        now = self._state.last_step = time.monotonic()
        self._waiting_since = self._waiting_since or now
        done, _ = wait([future], timeout=_IDLE_SECONDS)
        if done or self._stopping or now - self._waiting_since < _PAUSE_AFTER_SECONDS:
            return
        if not self._paused:
            # Nothing more is fetched while nothing is stored, but polling goes on, or the group would think us dead.
            self._kafka.pause(self._kafka.assignment())
            self._paused = True
        record = self._kafka.poll(0)
        if record is not None:
            self._take([record])

    def _resume(self) -> None:
        self._waiting_since = 0.0
        if self._paused:
            self._kafka.resume(self._kafka.assignment())
            self._paused = False

    # What is ours

    def _on_assign(self, _: KafkaConsumer, partitions: list[TopicPartition]) -> None:
        self._guarded(lambda: self._take_over(partitions))

    def _on_revoke(self, _: KafkaConsumer, partitions: list[TopicPartition]) -> None:
        self._guarded(lambda: self._let_go(partitions, self._settings.drain_deadline_seconds))

    def _on_lost(self, _: KafkaConsumer, partitions: list[TopicPartition]) -> None:
        # Somebody else may own them already; what is in flight is stored or fenced, it cannot do harm.
        self._guarded(lambda: self._let_go(partitions, 0.0))

    def _guarded(self, action: Callable[[], None]) -> None:
        """Run a rebalance callback; an error in it ends the loop once Kafka has its thread back."""
        try:
            action()
        except (ServiceError, KafkaException) as error:
            self._failure = (
                error if isinstance(error, ServiceError) else StartupError(f"Kafka: {error.args[0].str()}")
            )

    def _take_over(self, partitions: Sequence[TopicPartition]) -> None:
        self._state.joined = True
        if not partitions:
            return
        self._settle(self._settings.drain_deadline_seconds)
        self._topic_ids |= kafka.topic_ids(self._admin, sorted({one.topic for one in partitions}))
        claims = self._writer.submit_claim(
            self._settings.kafka_group, self._name, kafka.wanted(self._kafka, partitions, self._topic_ids)
        )
        try:
            claimed = claims.result(timeout=_CLAIM_SECONDS)
        except TimeoutError:
            raise StartupError(
                f"partitions were assigned but could not be claimed in {_CLAIM_SECONDS:.0f} s: "
                f"{self._writer.trouble or 'the database does not answer'}"
            ) from None
        for one in claimed:
            self._state.partitions[one.topic, one.partition] = Progress(one.epoch, one.next_offset)
            log.info("partition taken over", topic=one.topic, partition=one.partition, offset=one.next_offset)
        self._kafka.incremental_assign(
            [TopicPartition(one.topic, one.partition, one.next_offset) for one in claimed]
        )
        self._forget()

    def _let_go(self, partitions: list[TopicPartition], seconds: float) -> None:
        self._settle(seconds)
        gone = {(one.topic, one.partition) for one in partitions}
        for partition in gone:
            self._state.partitions.pop(partition, None)
            self._hints.pop(partition, None)
            log.info("partition let go", topic=partition[0], partition=partition[1])
        self._batch = self._batch.without_partitions(gone, self._tables)
        self._kafka.incremental_unassign(partitions)
        self._forget()

    def _settle(self, seconds: float) -> None:
        """Have nothing in flight: wait for the writer, up to `seconds`, then make it give up.

        Runs in callbacks too, so it does not poll and does not try again what has failed.
        """
        futures = [flight.future for flight in self._flights]
        self._writer.finish(futures, seconds)
        if self._nested:
            self._interrupted = True
        dropped = 0
        while self._flights:
            flight = self._flights.popleft()
            try:
                self._note_stored(flight.plan, flight.future.result())
            except BatchError:
                dropped += flight.plan.size
        if dropped:
            log.warning("records were read and not stored; they will be read again", records=dropped)
            self._rewind()

    def _forget(self) -> None:
        """Plan on from what is stored, not from what would have been."""
        self._known.clear()
        self._positions = {
            partition: progress.next_offset for partition, progress in self._state.partitions.items()
        }

    def _rewind(self) -> None:
        """Drop what was read and read it again from the stored offsets."""
        self._writer.go_on()
        self._batch = Batch()
        self._forget()
        if self._stopping or not self._positions:
            return
        there = [TopicPartition(topic, number, offset) for (topic, number), offset in self._positions.items()]
        self._kafka.incremental_unassign(there)
        self._kafka.incremental_assign(there)

    def _drain(self) -> None:
        if self._batch.records:
            self._hand_over()
        self._settle(max(0.0, self._stop_at - time.monotonic()))
        self._hinted = 0.0
        self._hint()

    def _hint(self) -> None:
        """Tell Kafka how far we are, for lag tools, and ask it where the ends are, for ours."""
        now = time.monotonic()
        if now - self._hinted < _HINT_SECONDS:
            return
        self._hinted = now
        for (topic, number), progress in self._state.partitions.items():
            _, high = self._kafka.get_watermark_offsets(TopicPartition(topic, number), cached=True)
            if high >= 0:
                progress.end_offset = high
                self._state.kafka_trouble = ""
        offsets = [TopicPartition(topic, number, offset) for (topic, number), offset in self._hints.items()]
        self._hints.clear()
        if offsets:
            try:
                self._kafka.commit(offsets=offsets, asynchronous=True)
            except KafkaException as error:
                log.debug("Kafka did not take the offsets", reason=error.args[0].str())
