"""Storing a batch that has failed: from fresh knowledge, and if a message is refused, without that message."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any, NamedTuple, Protocol, TypeVar

from confluent_kafka import Message as Record

from marketfeed_consumers.decode import Batch, Partition, Place, batch_of, place
from marketfeed_consumers.errors import BadData, BatchError, StaleKnowledge
from marketfeed_consumers.plan import Plan, mark_keys, plan
from marketfeed_consumers.transaction import Owner
from marketfeed_consumers.writer import Stored, Writer

T = TypeVar("T")


class Await(Protocol):
    """Waits for the writer, while Kafka is kept content."""

    def __call__(self, future: "Future[T]") -> T:
        """The future's result; raises Abandoned when waiting has no point any more."""


class Context(NamedTuple):
    """What storing a batch needs besides the batch.

    Attributes:
        tables: topic -> table.
        positions: the next offset of each partition, as stored.
    """

    tables: Mapping[str, str]
    positions: Mapping[Partition, int]
    owner: Owner
    writer: Writer
    wait: Await


def store(batch: Batch, error: BatchError, context: Context) -> tuple[Plan, Stored]:
    """Store `batch`, which failed with `error` (or stood behind one that did).

    Raises:
        Abandoned, Fenced: the batch is dropped.
    """
    offenders: dict[Place, str] = {}
    distrust = False
    while True:
        distrust = distrust or (isinstance(error, StaleKnowledge) and error.distrust)
        try:
            made = _planned(batch, context, distrust=distrust)
            return made, context.wait(context.writer.submit_write(made, context.owner))
        except StaleKnowledge as stale:
            error = stale
        except BadData as bad:
            error = bad
            found = find_offenders(
                [one for one in batch.records if place(one) not in offenders],
                lambda records: _refusal(records, offenders, context),
            )
            offenders.update({place(record): str(reason) for record, reason in found})
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


def find_offenders(items: Sequence[R], refusal: Callable[[Sequence[R]], Any]) -> list[tuple[R, Any]]:
    """The items that have to go for the rest to be taken, each with the reason it was refused for.

    By halving: the shortest beginning that is refused ends in an offender; without it the search goes on from
    there. That also finds an item which is refused only because of an earlier one.

    Args:
        refusal: the reason why a sequence of items is not taken, None when it is.
    """
    kept: list[R] = []
    rest = list(items)
    found = []
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
        found.append((rest[taken], reason))
        kept += rest[:taken]
        rest = rest[refused:]
    return found
