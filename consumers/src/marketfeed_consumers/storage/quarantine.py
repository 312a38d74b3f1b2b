"""Storing a batch that has failed: from fresh knowledge, and if a message is refused, without that message."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from typing import Any, Final, Generic, NamedTuple, Protocol, TypeVar

from confluent_kafka import Message as Record

from marketfeed_consumers.errors import BatchError, DataRejected, QuarantineLimitExceeded, StaleRanges
from marketfeed_consumers.kafka.decode import Batch, Partition, RecordId, batch_of, record_id
from marketfeed_consumers.planning.plan import Plan, plan, ranges_keys
from marketfeed_consumers.storage.transaction import Owner
from marketfeed_consumers.storage.writer import Stored, Writer

T = TypeVar("T")

MAX_REJECTIONS: Final = 10
"""How many messages may be refused one after another, for whatever reasons, with none stored in between."""


class Await(Protocol):
    """Waits for the writer, while Kafka is kept content."""

    def __call__(self, future: "Future[T]") -> T:
        """The future's result; raises Abandoned when waiting has no point any more."""


class Context(NamedTuple):
    """What storing a batch needs besides the batch.

    Attributes:
        tables: topic -> table.
        positions: the next offset of each partition, as stored.
        rejections: counts those that come one after another.
    """

    tables: Mapping[str, str]
    positions: Mapping[Partition, int]
    owner: Owner
    writer: Writer
    wait: Await
    rejections: "RejectionCounter"


class RejectionCounter:
    """Tells a fault of messages from one of the database: no message is refused because another one was.

    A role or database setting, a constraint that nothing meets or a wrong encoding refuses all of them; then to put one
    after another into dead_letters would empty the topic into it.
    """

    def __init__(self) -> None:
        self._count = 0

    def refused(self, error: DataRejected, at: RecordId) -> None:
        """Count a message that was refused.

        Raises:
            QuarantineLimitExceeded: it is one too many.
        """
        self._count += 1
        if self._count > MAX_REJECTIONS:
            topic, partition, offset = at
            raise QuarantineLimitExceeded(
                f"the database rejects every message: {MAX_REJECTIONS} in a row were stored as dead letters or "
                f"retried, none was stored in between, and {topic}[{partition}] at offset {offset} is rejected, too: "
                f"{error}. Check what rejects all of them: a constraint, a trigger, the encoding, a setting of the "
                "role or database. To skip poison messages: "
                f"marketfeed-consumer reset-offsets --topic {topic} --partition {partition} --to OFFSET"
            )

    def stored(self) -> None:
        """Note that messages were stored, or would be."""
        self._count = 0


def store(batch: Batch, error: BatchError, context: Context) -> tuple[Plan, Stored]:
    """Store `batch`, which failed with `error` (or stood behind one that did).

    Raises:
        Abandoned, Fenced, QuarantineLimitExceeded, TimedOut: the batch is dropped, or the caller tries less at once.
    """
    poison: dict[RecordId, str] = {}
    verify_rows = False
    while True:
        verify_rows = verify_rows or (isinstance(error, StaleRanges) and error.verify_rows)
        try:
            made = _planned(batch, context, verify_rows=verify_rows)
            result = context.wait(context.writer.submit_write(made, context.owner))
            if made.size > len(made.dead_letters):
                context.rejections.stored()
            return made, result  # noqa: TRY300 - the loop's only end
        except StaleRanges as stale:
            error = stale
        except DataRejected as bad:
            error = bad
            for found in find_poison(
                [one for one in batch.records if record_id(one) not in poison],
                lambda records: _refusal(records, poison, context),
            ):
                if found.accepted:
                    context.rejections.stored()
                context.rejections.refused(found.reason, record_id(found.item))
                poison[record_id(found.item)] = str(found.reason)
            batch = batch_of(batch.records, context.tables, poison)


def _planned(batch: Batch, context: Context, *, verify_rows: bool) -> Plan:
    stored_ranges = context.wait(context.writer.submit_load(ranges_keys(batch)))
    return plan(batch, stored_ranges, context.positions, verify_rows=verify_rows)


def _refusal(
    records: Sequence[Record], poison: Mapping[RecordId, str], context: Context
) -> DataRejected | None:
    part = batch_of(records, context.tables, poison)
    while True:
        try:
            made = _planned(part, context, verify_rows=True)
            return context.wait(context.writer.submit_probe(made, context.owner))
        except DataRejected as error:  # a name that the database cannot even be asked for
            return error
        except StaleRanges:  # retention, or another group's consumer, came in between
            continue


R = TypeVar("R")


class PoisonRecord(NamedTuple, Generic[R]):
    """An item that is refused, the reason, and how many between it and the one before it are not."""

    item: R
    reason: Any
    accepted: int


def find_poison(items: Sequence[R], refusal: Callable[[Sequence[R]], Any]) -> Iterator[PoisonRecord[R]]:
    """The items that have to go for the rest to be taken, each with the reason it was refused for.

    By halving: the shortest beginning that is refused ends in an offender; without it the search goes on from
    there. That also finds an item which is refused only because of an earlier one.

    Args:
        refusal: the reason why a sequence of items is not taken, None when it is.
    """
    kept: list[R] = []
    rest = list(items)
    while rest:
        reason = refusal([*kept, *rest])
        if reason is None:
            break
        taken, refused = 0, len(rest)
        while refused - taken > 1:
            middle = (taken + refused) // 2
            trial = refusal([*kept, *rest[:middle]])
            if trial is None:
                taken = middle
            else:
                refused, reason = middle, trial
        yield PoisonRecord(rest[taken], reason, taken)
        kept += rest[:taken]
        rest = rest[refused:]
