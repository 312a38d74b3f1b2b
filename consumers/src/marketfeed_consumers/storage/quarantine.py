"""Storing a batch that has failed: from fresh knowledge, and if a message is refused, without that message."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from typing import Any, Final, Generic, NamedTuple, Protocol, TypeVar

from confluent_kafka import Message as Record

from marketfeed_consumers.errors import BadData, BatchError, Refused, StaleKnowledge
from marketfeed_consumers.kafka.decode import Batch, Partition, Place, batch_of, place
from marketfeed_consumers.planning.plan import Plan, mark_keys, plan
from marketfeed_consumers.storage.transaction import Owner
from marketfeed_consumers.storage.writer import Stored, Writer

T = TypeVar("T")

MAX_REFUSALS: Final = 10
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
        refusals: counts those that come one after another.
    """

    tables: Mapping[str, str]
    positions: Mapping[Partition, int]
    owner: Owner
    writer: Writer
    wait: Await
    refusals: "Refusals"


class Refusals:
    """Tells a fault of messages from one of the database: no message is refused because another one was.

    A role or database setting, a constraint that nothing meets or a wrong encoding refuses all of them; then to put one
    after another into dead_letters would empty the topic into it.
    """

    def __init__(self) -> None:
        self._count = 0

    def refused(self, error: BadData, at: Place) -> None:
        """Count a message that was refused.

        Raises:
            Refused: it is one too many.
        """
        self._count += 1
        if self._count > MAX_REFUSALS:
            topic, partition, offset = at
            raise Refused(
                f"the database refuses message after message: {MAX_REFUSALS} were put into dead_letters or held back, "
                f"none was stored in between, and now {topic}[{partition}] at offset {offset} is refused as well: "
                f"{error}. Look for what refuses them all: a constraint, a trigger, the encoding, a setting of the "
                "role or database. To pass over messages that are wrong: "
                f"marketfeed-consumer reset-offsets --topic {topic} --partition {partition} --to OFFSET"
            )

    def stored(self) -> None:
        """Note that messages were stored, or would be."""
        self._count = 0


def store(batch: Batch, error: BatchError, context: Context) -> tuple[Plan, Stored]:
    """Store `batch`, which failed with `error` (or stood behind one that did).

    Raises:
        Abandoned, Fenced, Refused, TimedOut: the batch is dropped, or the caller tries less at once.
    """
    offenders: dict[Place, str] = {}
    distrust = False
    while True:
        distrust = distrust or (isinstance(error, StaleKnowledge) and error.distrust)
        try:
            made = _planned(batch, context, distrust=distrust)
            result = context.wait(context.writer.submit_write(made, context.owner))
            if made.size > len(made.dead_letters):
                context.refusals.stored()
            return made, result  # noqa: TRY300 - the loop's only end
        except StaleKnowledge as stale:
            error = stale
        except BadData as bad:
            error = bad
            for found in find_offenders(
                [one for one in batch.records if place(one) not in offenders],
                lambda records: _refusal(records, offenders, context),
            ):
                if found.accepted:
                    context.refusals.stored()
                context.refusals.refused(found.reason, place(found.item))
                offenders[place(found.item)] = str(found.reason)
            batch = batch_of(batch.records, context.tables, offenders)


def _planned(batch: Batch, context: Context, *, distrust: bool) -> Plan:
    known = context.wait(context.writer.submit_load(mark_keys(batch)))
    return plan(batch, known, context.positions, distrust=distrust)


def _refusal(records: Sequence[Record], offenders: Mapping[Place, str], context: Context) -> BadData | None:
    part = batch_of(records, context.tables, offenders)
    while True:
        try:
            made = _planned(part, context, distrust=True)
            return context.wait(context.writer.submit_probe(made, context.owner))
        except BadData as error:  # a name that the database cannot even be asked for
            return error
        except StaleKnowledge:  # retention, or another group's consumer, came in between
            continue


R = TypeVar("R")


class Offender(NamedTuple, Generic[R]):
    """An item that is refused, the reason, and how many between it and the one before it are not."""

    item: R
    reason: Any
    accepted: int


def find_offenders(items: Sequence[R], refusal: Callable[[Sequence[R]], Any]) -> Iterator[Offender[R]]:
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
        yield Offender(rest[taken], reason, taken)
        kept += rest[:taken]
        rest = rest[refused:]
