"""Trade history of one symbol for REST, and its aggregates."""

from bisect import bisect_left, bisect_right
from decimal import Decimal
from typing import Any

import msgspec

from marketfeed_simulator.frames import TradeRow


class Aggregate(msgspec.Struct):
    """Consecutive fills of one taker order at one price."""

    id: int
    price: str
    qty: Decimal
    first_id: int
    last_id: int
    time_us: int
    buyer_is_maker: bool


class TradeHistory:
    """Trades in id order.

    Args:
        keep: minimum number of newest trades to keep; 0 keeps all.
    """

    def __init__(self, keep: int = 0) -> None:
        self._keep = keep
        self._ids: list[int] = []
        self._rows: list[TradeRow] = []
        self._aggregates: list[Aggregate] = []
        self._folded = 0
        self._next_aggregate_id = 1

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, row: TradeRow) -> bool:
        """Add a trade; return False if the id exists already (recordings may repeat one)."""
        if not self._ids or row.id > self._ids[-1]:
            self._ids.append(row.id)
            self._rows.append(row)
            if self._keep and len(self._ids) > 2 * self._keep:
                self._trim()
            return True
        place = bisect_left(self._ids, row.id)
        if self._ids[place] == row.id:
            return False
        self._ids.insert(place, row.id)
        self._rows.insert(place, row)
        self._aggregates.clear()
        self._folded, self._next_aggregate_id = 0, 1
        return True

    def recent(self, limit: int, until_us: int | None = None) -> list[TradeRow]:
        """Return the newest `limit` trades up to `until_us`, oldest first."""
        end = len(self._rows)
        if until_us is not None:
            end = bisect_right(self._rows, until_us, key=_time)
        return self._rows[max(0, end - limit) : end]

    def since(self, first_id: int, limit: int) -> list[TradeRow]:
        """Return up to `limit` trades with ids from `first_id` on."""
        place = bisect_left(self._ids, first_id)
        return self._rows[place : place + limit]

    def aggregates(
        self, limit: int, first_id: int | None = None, start_us: int | None = None, end_us: int | None = None
    ) -> list[Aggregate]:
        """Return up to `limit` aggregates.

        As at the venue: from `first_id` on; or between the times (both included), the oldest first where `start_us` is
        given, otherwise the newest before `end_us`; or the newest of all.

        Args:
            limit: maximum number of aggregates.
            first_id: first aggregate id.
            start_us: earliest time in microseconds.
            end_us: latest time in microseconds.
        """
        self._fold()
        found = self._aggregates
        if first_id is not None:
            place = bisect_left(found, first_id, key=lambda aggregate: aggregate.id)
            return found[place : place + limit]
        low = 0 if start_us is None else bisect_left(found, start_us, key=_time)
        high = len(found) if end_us is None else bisect_left(found, end_us + 1, key=_time)
        return found[low : min(high, low + limit)] if start_us is not None else found[low:high][-limit:]

    def _fold(self) -> None:
        """Aggregate the trades added since the last call."""
        for row in self._rows[self._folded :]:
            last = self._aggregates[-1] if self._aggregates else None
            if last is not None and _belongs(row, last):
                last.qty += Decimal(row.qty)
                last.last_id = row.id
                continue
            number = row.aggregate_id or self._next_aggregate_id
            self._next_aggregate_id = number + 1
            self._aggregates.append(
                Aggregate(
                    number, row.price, Decimal(row.qty), row.id, row.id, row.time_us, row.buyer_is_maker
                )
            )
        self._folded = len(self._rows)

    def _trim(self) -> None:
        self._fold()
        del self._ids[: -self._keep], self._rows[: -self._keep]
        self._folded = len(self._rows)
        oldest = self._ids[0]
        del self._aggregates[: bisect_left(self._aggregates, oldest, key=lambda aggregate: aggregate.last_id)]


def _time(row: Aggregate | TradeRow) -> int:
    return row.time_us


def _belongs(row: TradeRow, last: Aggregate) -> bool:
    if row.aggregate_id:
        return row.aggregate_id == last.id
    # As documented by the venue: same time, same price, same taker side; a trade does not carry the taker's order.
    return (
        row.id == last.last_id + 1
        and row.time_us == last.time_us
        and row.price == last.price
        and row.buyer_is_maker == last.buyer_is_maker
    )


def trade_json(row: TradeRow, *, microseconds: bool) -> dict[str, Any]:
    """Return a row of `trades` and `historicalTrades`."""
    return {
        "id": row.id,
        "price": row.price,
        "qty": row.qty,
        "quoteQty": f"{Decimal(row.price) * Decimal(row.qty):.8f}",
        "time": row.time_us if microseconds else row.time_us // 1000,
        "isBuyerMaker": row.buyer_is_maker,
        "isBestMatch": True,
    }


def aggregate_json(aggregate: Aggregate, *, microseconds: bool) -> dict[str, Any]:
    """Return a row of `aggTrades`."""
    return {
        "a": aggregate.id,
        "p": aggregate.price,
        "q": f"{aggregate.qty:f}",  # str() writes small ones with an exponent
        "f": aggregate.first_id,
        "l": aggregate.last_id,
        "T": aggregate.time_us if microseconds else aggregate.time_us // 1000,
        "m": aggregate.buyer_is_maker,
        "M": True,
    }
