"""Decoding of Kafka records into messages, and of poison messages into dead letters.

A `Batch` grows while records are read and is then planned as one transaction. It keeps the records: if the database
rejects one of them, the batch is decoded again without it.
"""

from collections import defaultdict
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from operator import attrgetter
from typing import Final, NamedTuple, TypeAlias, TypeVar

from confluent_kafka import Message as Record

from marketfeed_consumers.planning.stored_ranges import Key
from marketfeed_wire import (
    BookTicker,
    DecodeError,
    Gap,
    Trade,
    decode_book_ticker,
    decode_gap,
    decode_rejected,
    decode_trade,
    trade_identity,
)
from marketfeed_wire.bulk import decode_book_tickers, decode_trades

_M = TypeVar("_M", Trade, BookTicker)
_ORIGIN: Final[Callable[[Trade | BookTicker], tuple[str, int]]] = attrgetter("venue", "id_series")

Partition: TypeAlias = tuple[str, int]
"""(topic, partition)."""


class DeadLetter(NamedTuple):
    """A poison message and the reason.

    Attributes:
        trade: (venue, symbol, id series, trade id) if these can be decoded.
    """

    topic: str
    partition: int
    kafka_offset: int
    message_key: bytes | None
    value: bytes | None
    reason: str
    trade: tuple[str, str, int, int] | None = None


RecordId: TypeAlias = tuple[str, int, int]
"""(topic, partition, offset) of a record."""


def record_id(record: Record) -> RecordId:
    """Return the topic, partition and offset of `record`."""
    return record.topic() or "", record.partition() or 0, record.offset() or 0


def dead_letter(record: Record, reason: str, table: str) -> DeadLetter:
    """Return the dead letter of `record`, a message of `table`; `reason` is escaped for a text column.

    Args:
        record: the poison message.
        reason: the reason.
        table: the table of its topic.
    """
    clean = reason.replace("\x00", "\\x00").encode("utf-8", "backslashreplace").decode()
    key, value = record.key(), _bytes(record)
    # Messages of the rejected topic go to dead_letters, too, and have the same identity fields as a trade.
    trade = trade_identity(value) if table in ("trades", "dead_letters") and value else None
    return DeadLetter(
        *record_id(record), key.encode() if isinstance(key, str) else key, value, clean[:2000], trade
    )


def _bytes(record: Record) -> bytes | None:
    value = record.value()
    return value.encode() if isinstance(value, str) else value


@dataclass(slots=True)
class Batch:
    """The records of one transaction, decoded.

    Attributes:
        records: in the order they were read, of all partitions.
        size_bytes: total size of their values.
        next_offsets: the next offset of each partition once the batch is stored.
        leader_epochs: the leader epoch of each partition at its next offset; -1 if unknown.
        trades, quotes: the messages by symbol and id series, in the order they were read.
        gaps: the gap records, in the order they were read.
    """

    records: list[Record] = field(default_factory=list)
    size_bytes: int = 0
    next_offsets: dict[Partition, int] = field(default_factory=dict)
    leader_epochs: dict[Partition, int] = field(default_factory=dict)
    trades: dict[Key, list[Trade]] = field(default_factory=dict)
    quotes: dict[Key, list[BookTicker]] = field(default_factory=dict)
    gaps: list[Gap] = field(default_factory=list)
    dead_letters: list[DeadLetter] = field(default_factory=list)

    def add(
        self,
        records: Sequence[Record],
        tables: Mapping[str, str],
        poison: Mapping[RecordId, str] | None = None,
    ) -> None:
        """Decode `records` into this batch.

        Args:
            records: records without errors and events.
            tables: topic -> the table of its messages.
            poison: records that the database rejects -> the reason; they become dead letters.
        """
        if not records:
            return
        self.records += records
        topics = {record.topic() or "" for record in records}
        for topic in topics:
            # Nearly always one topic: then no filtering is needed.
            own = records if len(topics) == 1 else [one for one in records if one.topic() == topic]
            self._note_offsets(topic, own)
            if poison:
                own = self._without_poison(own, poison, tables[topic])
            self._decode(own, tables[topic])

    def _note_offsets(self, topic: str, records: Sequence[Record]) -> None:
        # A dict keeps the last value of equal keys.
        last = dict(zip(map(Record.partition, records), records, strict=True))
        for number, record in last.items():
            self.next_offsets[topic, number or 0] = (record.offset() or 0) + 1
            epoch = record.leader_epoch()
            self.leader_epochs[topic, number or 0] = -1 if epoch is None else epoch

    def _without_poison(
        self, records: Sequence[Record], poison: Mapping[RecordId, str], table: str
    ) -> list[Record]:
        kept = []
        for record in records:
            reason = poison.get(record_id(record))
            if reason is None:
                kept.append(record)
            else:
                self.dead_letters.append(dead_letter(record, reason, table))
        return kept

    def _decode(self, records: Sequence[Record], table: str) -> None:
        values = [record.value() or b"" for record in records]
        self.size_bytes += sum(map(len, values))
        if table == "trades":
            _group(self.trades, self._decoded(records, values, table, decode_trades, decode_trade))
        elif table == "book_tickers":
            _group(
                self.quotes, self._decoded(records, values, table, decode_book_tickers, decode_book_ticker)
            )
        elif table == "dead_letters":
            self.dead_letters += [dead_letter(record, _rejection_reason(record), table) for record in records]
        else:
            self._decode_gaps(records)

    def _decoded(
        self,
        records: Sequence[Record],
        values: Sequence[bytes],
        table: str,
        decode_all: Callable[[Sequence[bytes]], list[_M]],
        decode_one: Callable[[bytes], _M],
    ) -> list[_M]:
        """Return the messages in `values`; invalid ones become dead letters."""
        try:
            return decode_all(values)
        except DecodeError:
            messages = []
        for record, value in zip(records, values, strict=True):
            try:
                messages.append(decode_one(value))
            except DecodeError as error:
                self.dead_letters.append(dead_letter(record, str(error), table))
        return messages

    def _decode_gaps(self, records: Sequence[Record]) -> None:
        for record in records:
            value = _bytes(record)
            if value is None:
                continue  # a tombstone of the compacted topic
            try:
                self.gaps.append(decode_gap(value))
            except DecodeError as error:
                self.dead_letters.append(dead_letter(record, str(error), "trade_gaps"))

    def without_partitions(self, gone: Container[Partition], tables: Mapping[str, str]) -> "Batch":
        """Return this batch without the records of the partitions `gone`."""
        return batch_of((one for one in self.records if record_id(one)[:2] not in gone), tables)


def _rejection_reason(record: Record) -> str:
    try:
        rejected = decode_rejected(_bytes(record) or b"")
    except DecodeError as error:
        return str(error)
    return f"rejected by the worker: {rejected.reason}: {rejected.details}"


def _group(groups: dict[Key, list[_M]], messages: Sequence[_M]) -> None:
    """Add `messages` to the groups of their symbols and id series."""
    by_symbol: defaultdict[str, list[_M]] = defaultdict(list)
    venues, series = {one.venue for one in messages}, {one.id_series for one in messages}
    # Nearly always one of each: then no filtering is needed.
    is_one = len(venues) == len(series) == 1
    for venue, id_series in product(venues, series):
        own = messages if is_one else [one for one in messages if _ORIGIN(one) == (venue, id_series)]
        for message in own:
            by_symbol[message.symbol].append(message)
        for symbol, group in by_symbol.items():
            held = groups.setdefault((venue, symbol, id_series), group)
            if held is not group:
                held += group
        by_symbol.clear()


def batch_of(
    records: Iterable[Record], tables: Mapping[str, str], poison: Mapping[RecordId, str] | None = None
) -> Batch:
    """Return a batch of `records`, with `poison` as dead letters.

    Args:
        records: records without errors and events.
        tables: topic -> the table of its messages.
        poison: records that the database rejects -> the reason.
    """
    batch = Batch()
    batch.add(list(records), tables, poison)
    return batch
