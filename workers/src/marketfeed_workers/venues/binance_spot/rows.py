"""Rows of trades in Binance's REST responses, and which trade ids a response proves to exist or not. Pure.

A response is a list of rows in ascending order of id, without omissions: ids between two rows do not exist (sources:
docs/venues). A row that cannot be used is skipped; the ids next to it are then not proven absent.
"""

from collections.abc import Sequence
from typing import Annotated, Final, Generic, NamedTuple, TypeVar

import msgspec

from marketfeed_service.id_ranges import IdRange, common, membership
from marketfeed_wire.messages import Id
from marketfeed_workers.venues.binance_spot.fields import TimeMs
from marketfeed_workers.venues.clock import EARLIEST_US

# As in wire messages, so that every accepted row can be stored.
DecimalText = Annotated[str, msgspec.Meta(pattern=r"^([0-9]+\.?[0-9]*|\.[0-9]+)$", max_length=64)]

# RecursionError: msgspec raises it for deeply nested values, also inside ignored fields.
INVALID_MESSAGE_ERRORS: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class TradeRow(msgspec.Struct, rename="camel"):
    """A trade."""

    id: Id
    price: DecimalText
    qty: DecimalText
    time: TimeMs
    is_buyer_maker: bool

    @property
    def ids(self) -> IdRange:
        """Trade ids of the row."""
        return IdRange(self.id, self.id)

    @property
    def time_ms(self) -> int:
        """Match time."""
        return self.time


class AggregateRow(msgspec.Struct):
    """Aggregate of the trades `f` to `l`."""

    a: int
    f: Id
    l: Id  # noqa: E741 - the venue's name for it
    p: DecimalText
    q: DecimalText
    T: TimeMs
    m: bool

    @property
    def ids(self) -> IdRange:
        """Trade ids of the row."""
        return IdRange(self.f, self.l)

    @property
    def time_ms(self) -> int:
        """Match time of the first trade."""
        return self.T


Row = TypeVar("Row", TradeRow, AggregateRow)


class Page(NamedTuple, Generic[Row]):
    """The rows of one response, or of consecutive ones."""

    rows: list[Row]
    """Valid rows."""
    spans: list[IdRange | None]
    """Ids of every row in the order of the response; None where a row has none."""
    refused: list[str]
    """Errors of invalid rows."""

    def __add__(self, other: "Page[Row]") -> "Page[Row]":  # type: ignore[override]
        return Page(self.rows + other.rows, self.spans + other.spans, self.refused + other.refused)

    @property
    def last_id(self) -> int | None:
        """Last id of any row; None if no row has one."""
        return next((span.last for span in reversed(self.spans) if span is not None), None)


class _TradeIds(msgspec.Struct):
    id: Id

    @property
    def ids(self) -> IdRange:
        return IdRange(self.id, self.id)


class _AggregateIds(msgspec.Struct):
    f: Id
    l: Id  # noqa: E741

    @property
    def ids(self) -> IdRange:
        return IdRange(self.f, self.l)


class RowReader(Generic[Row]):
    """Decoder of a response that is a list of rows of one type."""

    def __init__(self, kind: type[Row], ids_only: type[_TradeIds] | type[_AggregateIds]) -> None:
        self._all: msgspec.json.Decoder[list[Row]] = msgspec.json.Decoder(list[kind])  # type: ignore[valid-type]
        self._one: msgspec.json.Decoder[Row] = msgspec.json.Decoder(kind)
        self._ids: msgspec.json.Decoder[_TradeIds | _AggregateIds] = msgspec.json.Decoder(ids_only)

    def read(self, body: bytes, latest_ms: int) -> Page[Row]:
        """Decode the rows of `body`; rows later than `latest_ms` are invalid.

        Raises:
            msgspec.DecodeError, UnicodeDecodeError, RecursionError: the body is not a list.
        """
        try:
            found: Sequence[Row | str] = self._all.decode(body)
            raws: Sequence[bytes] = ()
        except INVALID_MESSAGE_ERRORS:
            raws = [bytes(raw) for raw in _raws.decode(body)]
            found = [self._row(raw) for raw in raws]
        page: Page[Row] = Page([], [], [])
        seen: dict[IdRange, Row] = {}
        twice: set[IdRange] = set()
        for number, row in enumerate(found):
            reason = row if isinstance(row, str) else _impossible(row, latest_ms)
            span = row.ids if not isinstance(row, str) else self._span(raws[number])
            page.spans.append(span)
            if reason:
                page.refused.append(reason)
            elif not isinstance(row, str) and span is not None and seen.setdefault(span, row) != row:
                twice.add(span)
        page.refused.extend(f"trade {ids.first} twice, with different contents" for ids in sorted(twice))
        page.rows.extend(row for ids, row in seen.items() if ids not in twice)
        return page

    def _row(self, raw: bytes) -> Row | str:
        try:
            return self._one.decode(raw)
        except INVALID_MESSAGE_ERRORS as error:
            return f"{error}: {raw[:200]!r}"

    def _span(self, raw: bytes) -> IdRange | None:
        try:
            return self._ids.decode(raw).ids
        except INVALID_MESSAGE_ERRORS:
            return None


def _impossible(row: TradeRow | AggregateRow, latest_ms: int) -> str:
    if not EARLIEST_US // 1000 <= row.time_ms <= latest_ms:
        return f"impossible time {row.time_ms} of trade {row.ids.first}"
    if row.ids.last < row.ids.first:
        return f"ids {row.ids.first} to {row.ids.last} are not a range"
    return ""


_raws: Final = msgspec.json.Decoder(list[msgspec.Raw])
TRADES: Final = RowReader(TradeRow, _TradeIds)
AGGREGATES: Final = RowReader(AggregateRow, _AggregateIds)


class Proof(NamedTuple):
    """Trade ids that a response proves."""

    covered: IdRange | None
    """Ids that the response covers."""
    absent: list[IdRange]
    """Covered ids that do not exist."""


def prove(spans: Sequence[IdRange | None], since: int | None) -> Proof:
    """Return which ids are covered and which are absent.

    Rows that are not in ascending order, or begin before the requested id, contradict the venue's documentation: each
    of them is still a trade, but no id is proven absent.

    Args:
        spans: the ids of each row; None where a row has none.
        since: the requested first id; None if the request was not by id.
    """
    known = [span for span in spans if span is not None]
    if not known:
        return Proof(None, [])
    hull = IdRange(min(span.first for span in known), max(span.last for span in known))
    if hull.last < hull.first:
        return Proof(None, [])
    if since is not None:
        hull = IdRange(min(since, hull.first), hull.last)
    absent: list[IdRange] = []
    after: int | None = since - 1 if since is not None else None
    """Id up to which every id is known; None after a row without ids."""
    newest = -1 if since is None else since - 1
    for span in spans:
        if span is None:
            after = None
            continue
        is_repeat = span.last == newest and span.first <= newest
        if span.last < span.first or (span.first <= newest and not is_repeat):
            return Proof(hull, [])
        if after is not None and span.first > after + 1:
            absent.append(IdRange(after + 1, span.first - 1))
        after = newest = span.last
    return Proof(hull, absent)


def needed_part(proof: Proof, needed: Sequence[IdRange]) -> Proof:
    """Return the part of `proof` within `needed`."""
    reached = common(needed, [proof.covered]) if proof.covered is not None else []
    covered = IdRange(reached[0].first, reached[-1].last) if reached else None
    return Proof(covered, common(needed, proof.absent))


def needed_rows(rows: Sequence[Row], needed: Sequence[IdRange]) -> list[Row]:
    """Return the rows whose first id is in `needed`, in order of id."""
    is_needed = membership(needed)
    return sorted((row for row in rows if is_needed(row.ids.first)), key=lambda row: row.ids)
