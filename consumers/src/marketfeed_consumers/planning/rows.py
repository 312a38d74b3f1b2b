"""The messages of a batch for one table, sorted by what the transaction does with them."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from marketfeed_consumers.planning.conflicts import Conflict
from marketfeed_consumers.planning.stored_ranges import Key
from marketfeed_wire import BookTicker, Trade

M = TypeVar("M", Trade, BookTicker)


@dataclass(slots=True)
class Rows(Generic[M]):
    """The messages of a batch for one table.

    Attributes:
        new: by symbol, messages that are not stored; ascending by id, without duplicates.
        unverified: by symbol, messages that may already be stored and are looked up in the transaction.
        copy_text: `new` in COPY's text format, one piece per symbol.
        possible_duplicates: by symbol, messages with stored ids, to be compared with the rows, which are not in memory.
        conflicts: messages whose id is stored with another content.
        duplicates: number of messages already stored with the same content, or equal to one of this batch.
        unverifiable: number of messages with stored ids whose rows have expired, so that they cannot be compared.
        expired: number of late messages older than the retention limit.
    """

    new: dict[Key, Sequence[M]] = field(default_factory=dict)
    unverified: dict[Key, Sequence[M]] = field(default_factory=dict)
    copy_text: list[bytes] = field(default_factory=list)
    possible_duplicates: dict[Key, list[M]] = field(default_factory=dict)
    conflicts: list[Conflict[M]] = field(default_factory=list)
    duplicates: int = 0
    unverifiable: int = 0
    expired: int = 0
