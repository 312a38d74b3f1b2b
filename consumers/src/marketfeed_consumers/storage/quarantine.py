"""Quarantine: store a failed batch from reloaded stored ranges, without the messages that the database rejects."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from typing import Any, Final, Generic, NamedTuple, Protocol, TypeVar

from confluent_kafka import Message as Record

from marketfeed_consumers.errors import BatchError, DataRejected, QuarantineLimitExceeded, StaleRanges
from marketfeed_consumers.kafka.decode import Batch, Partition, RecordId, batch_of, record_id
from marketfeed_consumers.planning.plan import Plan, plan, ranges_keys
from marketfeed_consumers.storage.transaction import Owner, Stored
from marketfeed_consumers.storage.writer import Writer

T = TypeVar("T")

MAX_REJECTIONS: Final = 10
"""Maximum number of messages rejected in a row, with none stored in between."""


class Await(Protocol):
    """Waiting for the writer without losing the group membership."""

    def __call__(self, future: "Future[T]") -> T:
        """Return the future's result; raise Abandoned on a stop or a rebalance."""


class Context(NamedTuple):
    """Parameters of storing a batch.

    Attributes:
        tables: topic -> table.
        positions: partition -> stored next offset.
        rejections: counts those that come one after another.
    """

    tables: Mapping[str, str]
    positions: Mapping[Partition, int]
    owner: Owner
    writer: Writer
    wait: Await
    rejections: "RejectionCounter"


class RejectionCounter:
    """Counter of messages rejected in a row, which distinguishes poison messages from a fault of the database.

    A role or database setting, an unsatisfiable constraint or a wrong encoding rejects every message: without a limit
    the whole topic would go to dead_letters.
    """

    def __init__(self) -> None:
        self._count = 0

    def refused(self, error: DataRejected, at: RecordId) -> None:
        """Count a rejected message.

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
        """Reset the count, as messages were stored or accepted."""
        self._count = 0


def store(batch: Batch, error: BatchError, context: Context) -> tuple[Plan, Stored]:
    """Store `batch`, which failed with `error` or was behind a failed batch.

    Args:
        batch: the batch.
        error: its error.
        context: see `Context`.

    Raises:
        Abandoned, Fenced, QuarantineLimitExceeded, TimedOut: the batch is dropped, or split by the caller.
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
        except DataRejected as error:  # a name that the database cannot encode
            return error
        except StaleRanges:  # concurrent retention, or a consumer of another group
            continue


R = TypeVar("R")


class PoisonRecord(NamedTuple, Generic[R]):
    """A rejected item, the reason, and the number of accepted items between it and the previous one."""

    item: R
    reason: Any
    accepted: int


def find_poison(items: Sequence[R], refusal: Callable[[Sequence[R]], Any]) -> Iterator[PoisonRecord[R]]:
    """Yield the items that must be removed for the rest to be accepted, each with its reason.

    By bisection: the shortest rejected prefix ends in a poison item; the search continues without it from there. This
    also finds an item that is rejected only because of an earlier one.

    Args:
        items: the items, in order.
        refusal: returns the reason why a sequence of items is rejected, or None.
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
