"""The pipeline of batches through the writer: planned ahead, collected when stored, planned again after a failure."""

from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Final

from marketfeed_consumers.errors import (
    Abandoned,
    AlreadyCommitted,
    BatchError,
    DataRejected,
    StaleRanges,
    TimedOut,
)
from marketfeed_consumers.kafka.batching import RowLimit
from marketfeed_consumers.kafka.decode import Batch, Partition, batch_of
from marketfeed_consumers.kafka.reader import Reader
from marketfeed_consumers.kafka.waiting import Stop, WriterWait
from marketfeed_consumers.planning.conflicts import ConflictLog
from marketfeed_consumers.planning.plan import Plan, plan, ranges_keys
from marketfeed_consumers.planning.recent_trades import RecentTrades
from marketfeed_consumers.settings import ConsumerSettings
from marketfeed_consumers.state import State
from marketfeed_consumers.storage import quarantine
from marketfeed_consumers.storage.transaction import Owner, Stored
from marketfeed_consumers.storage.writer import Writer
from marketfeed_service import logs

log = logs.get(__name__)

_IN_FLIGHT: Final = 2
"""Maximum plans at the writer: one in work and one to begin at once."""


@dataclass(slots=True)
class InFlight:
    """A batch that was submitted to the writer."""

    batch: Batch
    plan: Plan
    future: "Future[Stored]"


class WritePipeline:
    """The pipeline of batches to the writer.

    Attributes:
        topic_ids: topic -> topic id, of the topics with owned partitions.
        hints: partition -> stored next offset that is not committed to Kafka yet.
    """

    def __init__(
        self,
        settings: ConsumerSettings,
        writer: Writer,
        state: State,
        reader: Reader,
        waiting: WriterWait,
        stop: Stop,
        observe: Callable[[Plan, Stored], None],
    ) -> None:
        self.topic_ids: dict[str, str] = {}
        self.hints: dict[Partition, int] = {}
        self._group = settings.kafka_group
        self._tables: Mapping[str, str] = settings.tables_by_topic()
        self._writer = writer
        self._state = state
        self._reader = reader
        self._waiting = waiting
        self._stop = stop
        self._observe = observe
        self._stored_ranges = state.stored_ranges
        self._recent = RecentTrades()
        self._conflicts = ConflictLog()
        self._positions: dict[Partition, int] = {}
        self._rejections = quarantine.RejectionCounter()
        self._row_limit = RowLimit(settings.batch_max_rows)
        self._in_flight: deque[InFlight] = deque()

    @property
    def is_idle(self) -> bool:
        """Whether no batch is in flight."""
        return not self._in_flight

    @property
    def has_room(self) -> bool:
        """Whether another batch can be submitted."""
        return len(self._in_flight) < _IN_FLIGHT

    def wait_for_room(self) -> None:
        """Wait briefly for the oldest batch in flight."""
        self._waiting.wait_briefly(self._in_flight[0].future)

    def submit_batch(self) -> None:
        """Plan the current batch and submit it to the writer."""
        batch = self._reader.take_batch()
        try:
            self._load_ranges(batch)
        except Abandoned as error:
            self._rewind(error)
            return
        except DataRejected as error:  # a name that the database cannot encode
            self._writer.wait([flight.future for flight in self._in_flight])
            self.collect()
            self._replan(batch, error)
            return
        self._submit(batch)

    def submit_ends(self, ends: Mapping[Partition, tuple[int, int]]) -> None:
        """Store the offsets of partitions that were read to their ends, past control and aborted records, if idle.

        Args:
            ends: partition -> the next offset and its leader epoch.
        """
        batch = Batch()
        for partition, (next_offset, leader_epoch) in ends.items():
            if next_offset > self._positions.get(partition, next_offset):
                batch.next_offsets[partition] = next_offset
                batch.leader_epochs[partition] = leader_epoch
        if self.is_idle and batch.next_offsets:
            self._submit(batch)

    def _submit(self, batch: Batch) -> None:
        made = plan(batch, self._stored_ranges, self._positions, recent=self._recent)
        self._stored_ranges.update(made.after())
        self._positions.update(batch.next_offsets)
        self._in_flight.append(InFlight(batch, made, self._writer.submit_write(made, self._owner())))

    def collect(self) -> None:
        """Collect the batches that the writer has finished.

        Raises:
            Fenced: another consumer owns a partition.
        """
        while self._in_flight and self._in_flight[0].future.done():
            flight = self._in_flight.popleft()
            try:
                result = flight.future.result()
            except BatchError as error:
                self._replan(flight.batch, error)
            else:
                self._note_stored(flight.plan, result)
                self._waiting.over()

    def look(self) -> None:
        """End the episodes of conflicts that are over."""
        self._conflicts.look()

    def drain(self, seconds: float) -> None:
        """Drain the batches in flight: wait up to `seconds` for the writer, then make it give up.

        Also runs in rebalance callbacks, so it does not poll and does not retry failed batches.
        """
        self._writer.finish([flight.future for flight in self._in_flight], seconds)
        self._writer.resume()  # even if all was stored after the deadline
        self._waiting.interrupt()
        dropped = 0
        while self._in_flight:
            flight = self._in_flight.popleft()
            try:
                self._note_stored(flight.plan, flight.future.result())
            except BatchError:
                dropped += flight.plan.size
        if dropped:
            log.warning("unstored records dropped", records=dropped)
            self._rewind()

    def reset(self) -> None:
        """Reset stored ranges and positions to the committed ones."""
        self._stored_ranges.clear()
        self._recent.clear()
        self._positions = {
            partition: owned.next_offset for partition, owned in self._state.partitions.items()
        }

    def _rewind(self, error: Abandoned | None = None) -> None:
        """Drop the current batch and seek to the committed offsets."""
        if isinstance(error, AlreadyCommitted):
            log.info("earlier commit found", positions=error.positions)
            for partition, (next_offset, leader_epoch) in error.positions.items():
                owned = self._state.partitions.get(partition)
                if owned is not None:
                    owned.next_offset, owned.leader_epoch = next_offset, leader_epoch
        self._writer.resume()
        self._reader.take_batch()
        self.reset()
        if not self._stop.requested and self._positions:
            self._reader.rewind(self._positions)

    def _load_ranges(self, batch: Batch) -> None:
        unknown = [key for key in ranges_keys(batch) if key not in self._stored_ranges]
        if unknown:
            loaded = self._waiting.wait_in_batch(self._writer.submit_load(unknown))
            self._stored_ranges.update(loaded)

    def _owner(self) -> Owner:
        epochs = {partition: owned.epoch for partition, owned in self._state.partitions.items()}
        return Owner(self._group, epochs, self.topic_ids)

    def _replan(self, failed: Batch, first_error: BatchError) -> None:
        """Store `failed` and the batches in flight behind it one by one, each from reloaded stored ranges.

        If one is dropped, all behind it are dropped: they would advance the offset past it.
        """
        self._writer.wait([flight.future for flight in self._in_flight])
        batches = [failed]
        for flight in self._in_flight:
            if flight.future.exception() is None:  # of other partitions, planned after the failure
                self._note_stored(flight.plan, flight.future.result())
            else:
                batches.append(flight.batch)
        self._in_flight.clear()
        self.reset()
        if isinstance(first_error, Abandoned):
            self._rewind(first_error)
            return
        log.info(
            "batches planned again",
            reason=str(first_error) or type(first_error).__name__,
            batches=len(batches),
        )
        try:
            for batch in batches:
                self._store_in_quarantine(batch, first_error)
        except Abandoned as error:
            self._rewind(error)

    def _store_in_quarantine(self, batch: Batch, error: BatchError) -> None:
        """Store one batch; split it in halves if a timeout of the database ends the transaction."""
        if isinstance(error, TimedOut) and len(batch.records) > 1:
            self._row_limit.timed_out(len(batch.records), error.seconds)
            self._reader.limit_rows(self._row_limit.rows)
            log.warning("batch size reduced", reason=str(error), rows=self._row_limit.rows)
            middle = len(batch.records) // 2
            for records in (batch.records[:middle], batch.records[middle:]):
                self._store_in_quarantine(batch_of(records, self._tables), StaleRanges())
            return
        context = quarantine.Context(
            self._tables,
            self._positions,
            self._owner(),
            self._writer,
            self._waiting.wait_in_batch,
            self._rejections,
        )
        try:
            made, result = quarantine.store(batch, error, context)
        except TimedOut as timed_out:
            self._store_in_quarantine(batch, timed_out)
            return
        self._stored_ranges.update(made.after())
        self._positions.update(batch.next_offsets)
        self._note_stored(made, result)

    def _note_stored(self, made: Plan, result: Stored) -> None:
        self._state.stored(made, result)
        self._observe(made, result)
        if made.size > len(made.dead_letters):
            self._rejections.stored()
        self._row_limit.stored(made.size, result.seconds)
        self._reader.limit_rows(self._row_limit.rows)
        self._conflicts.note(result.written.conflicts)
        for letter in made.dead_letters:
            log.warning(
                "dead letter",
                topic=letter.topic,
                partition=letter.partition,
                offset=letter.kafka_offset,
                reason=letter.reason,
            )
        for step in made.offset_advances:
            self.hints[step.topic, step.partition] = step.next_offset
