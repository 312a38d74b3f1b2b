"""The effect of the statements of `retain`, `rebuild` and the audit on the rows of `store.py`."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any, Final

from marketfeed_consumers.admin import audit, rebuild, retention
from marketfeed_consumers.database.tables import (
    book_tickers,
    candles_1m,
    dead_letters,
    quote_conflicts,
    retention_state,
    trade_conflicts,
    trade_gaps,
    trades,
)
from marketfeed_simtest.consumers.rows import MARK, MINUTE_US, SYMBOL, Found, Statement, age, candle_of
from marketfeed_simtest.consumers.store import Row, Transaction

_HOUR_US: Final = audit.HOUR_US

# --- retention, rebuilding ---


def _expired_symbols(t: Transaction, p: Any) -> Found:
    rows = t.rows("high_water_marks", table_name=p[0])
    return [[row[n] for n in (*SYMBOL, "last_id")] for row in rows if row["first_id"] <= row["last_id"]]


def _state_key(p: Any) -> tuple[Any, ...]:
    return (p["table"], *(p[name] for name in SYMBOL))


def _begin_retention(t: Transaction, p: Any) -> Found:
    key, limit = _state_key(p), p["before_us"]
    held = t.get("retention_state", *key)
    row = held or {
        **dict(zip(MARK, key, strict=True)), "deleted_rows": 0, "expired_before_time_us": limit,
        "finished_time_us": None,
    }  # fmt: skip
    highest = max(row["expired_before_time_us"], limit)
    new = {"limit_time_us": limit, "expired_before_time_us": highest, "impossible_rows": 0}
    t.put("retention_state", {**row, **new, "started_time_us": p["now_us"]})
    return 1


def _add_retention(t: Transaction, p: Any) -> Found:
    row = t.get("retention_state", *_state_key(p))
    if row is None:
        return 0
    added = {"deleted_rows": p["deleted"], "impossible_rows": p["impossible"]}
    t.put("retention_state", {**row, **{name: row[name] + value for name, value in added.items()}})
    return 1


def _end_retention(t: Transaction, p: Any) -> Found:
    row = t.get("retention_state", *_state_key(p))
    if row is None:
        return 0
    t.put("retention_state", {**row, "finished_time_us": p["now_us"]})
    return 1


def _own(t: Transaction, table: str, p: Any) -> list[Row]:
    return t.rows(table, **{name: p[name] for name in SYMBOL})


def _window(t: Transaction, p: Any) -> Found:
    id_name, time_name = retention.COLUMNS[p["table"]]
    rows = sorted(_own(t, p["table"], p), key=lambda row: row[id_name])
    rows = [row for row in rows if row[id_name] >= p["from_id"]][: p["limit"]]
    old = sum(p["earliest_us"] <= row[time_name] < p["before_us"] for row in rows)
    odd = sum(row[time_name] < p["earliest_us"] or row[time_name] > p["latest_us"] for row in rows)
    return [[max((row[id_name] for row in rows), default=None), len(rows), old, odd]]


def _delete_old(t: Transaction, p: Any) -> Found:
    id_name, time_name = retention.COLUMNS[p["table"]]
    old = [
        row
        for row in _own(t, p["table"], p)
        if p["from_id"] <= row[id_name] <= p["to_id"] and row[id_name] < p["below_id"]
        and p["earliest_us"] <= row[time_name] < p["before_us"]
    ]  # fmt: skip
    for row in old:
        t.delete(p["table"], row)
    return len(old)


def _expire_letters(t: Transaction, p: Any) -> Found:
    old = [row for row in t.rows("dead_letters") if _is_letter_old(t, row, p["before_us"])][: p["limit"]]
    for row in old:
        t.delete("dead_letters", row)
    return len(old)


def _expire_conflicts(table: str, times: Sequence[str]) -> Statement:
    def expire(t: Transaction, p: Any) -> Found:
        old = [
            row
            for row in t.rows(table)
            if min(row[name] for name in times) >= p["earliest_us"]
            and max(row["noticed_time_us"], *(row[name] for name in times)) < p["before_us"]
        ][: p["limit"]]
        for row in old:
            t.delete(table, row)
        return len(old)

    return expire


def _is_letter_old(t: Transaction, row: Row, before_us: int) -> bool:
    if row["stored_time_us"] >= before_us:
        return False
    if row["trade_id"] is None:
        return True
    key = [row[name] for name in SYMBOL]
    state, mark = t.get("retention_state", trades.NAME, *key), t.get("high_water_marks", trades.NAME, *key)
    if state is not None and row["stored_time_us"] < state["limit_time_us"]:
        return True
    is_inside = mark is not None and mark["first_id"] <= row["trade_id"] <= mark["last_id"]
    return is_inside and not any(
        one["first_trade_id"] <= row["trade_id"] <= one["last_trade_id"]
        for one in t.rows("missing_trades", **dict(zip(SYMBOL, key, strict=True)))
    )


def _marked_symbols(t: Transaction, p: Any) -> Found:
    rows = t.rows("high_water_marks", table_name=p["table"])
    return [[row[n] for n in SYMBOL] for row in rows if row["first_id"] <= row["last_id"]]


def _whole_from(t: Transaction, p: Any) -> Found:
    row = t.get("retention_state", trades.NAME, *(p[name] for name in SYMBOL))
    if row is None:
        return []
    return [[-(-row["expired_before_time_us"] // MINUTE_US) * MINUTE_US]]


def _by(rows: Iterable[Row], size_us: int) -> dict[int, list[Row]]:
    found: defaultdict[int, list[Row]] = defaultdict(list)
    for row in rows:
        found[row["trade_time_us"] - row["trade_time_us"] % size_us].append(row)
    return dict(sorted(found.items()))


def _minutes(t: Transaction, p: Any) -> Found:
    rows = [row for row in _own(t, "trades", p) if p["since_us"] <= row["trade_time_us"] < p["until_us"]]
    return [
        [minute, len(own), min(r["trade_id"] for r in own), max(r["trade_id"] for r in own)]
        for minute, own in _by(rows, MINUTE_US).items()
    ]


def _delete_candles(t: Transaction, p: Any) -> Found:
    rows = [r for r in _own(t, "candles_1m", p) if p["from_us"] <= r["open_time_us"] < p["to_us"]]
    for row in rows:
        t.delete("candles_1m", row)
    return [[row["first_trade_id"], row["last_trade_id"]] for row in rows]


def _aggregate(t: Transaction, p: Any) -> Found:
    rows = [
        row
        for row in _own(t, "trades", p)
        if p["first_id"] <= row["trade_id"] <= p["last_id"]
        and p["from_us"] <= row["trade_time_us"] < p["to_us"]
    ]
    made = [candle_of(own) for own in _by(rows, MINUTE_US).values()]
    for row in made:
        t.put("candles_1m", row, is_new=True)
    return len(made)


def _delete_top(t: Transaction, p: Any) -> Found:
    row = t.get("top_of_book", p["venue"], p["symbol"])
    if row is None:
        return 0
    t.delete("top_of_book", row)
    return 1


def _newest_top(t: Transaction, p: Any) -> Found:
    rows = t.rows("book_tickers", venue=p["venue"], symbol=p["symbol"])
    if not rows:
        return 0
    t.put("top_of_book", max(rows, key=age), is_new=True)
    return 1


# --- the audit ---


def _hours(t: Transaction, _: Any) -> Found:
    hours: defaultdict[tuple[Any, ...], list[Row]] = defaultdict(list)
    for row in t.rows("candles_1m"):
        hours[(*(row[n] for n in SYMBOL), row["open_time_us"] - row["open_time_us"] % _HOUR_US)].append(row)
    return [
        [
            *key,
            min(row["first_trade_id"] for row in rows),
            max(row["last_trade_id"] for row in rows),
            sum(row["trade_count"] for row in rows),
        ]
        for key, rows in sorted(hours.items())
    ]


def _columns(table: str, names: Sequence[str], **where: Any) -> Statement:
    return lambda t, _: [[row[name] for name in names] for row in t.rows(table, **where)]


def _retained(t: Transaction, _: Any) -> Found:
    names = (*SYMBOL, "table_name", "limit_time_us", "expired_before_time_us")
    selected = (trades.NAME, candles_1m.NAME)
    return [[r[n] for n in names] for r in t.rows("retention_state") if r["table_name"] in selected]


def _rejected(t: Transaction, _: Any) -> Found:
    """Return each id as a range of its own: the audit's result is the same."""
    newest: dict[tuple[Any, ...], int] = {}
    for row in t.rows("dead_letters"):
        if row["trade_id"] is not None:
            key = (*(row[name] for name in SYMBOL), row["trade_id"])
            newest[key] = max(newest.get(key, 0), row["stored_time_us"])
    return [[*key[:3], key[3], key[3], time_us] for key, time_us in sorted(newest.items())]


def _conflicts(table: str, id_name: str, of: str) -> Statement:
    def conflicts(t: Transaction, _: Any) -> Found:
        found: defaultdict[tuple[Any, ...], list[Row]] = defaultdict(list)
        for row in t.rows(table):
            found[tuple(row[name] for name in SYMBOL)].append(row)
        return [
            [
                *(of, *key, len({row[id_name] for row in rows})),
                *(min(row[id_name] for row in rows), max(row[id_name] for row in rows)),
                sum(row["messages"] for row in rows),
            ]
            for key, rows in sorted(found.items())
        ]

    return conflicts


def _gaps_outside(t: Transaction, _: Any) -> Found:
    found = []
    for gap in t.rows("trade_gaps"):
        mark = t.get("high_water_marks", trades.NAME, *(gap[name] for name in SYMBOL))
        span = None if mark is None else (mark["first_id"], mark["last_id"])
        if gap["missing"] and (span is None or gap["first_id"] < span[0] or gap["last_id"] > span[1]):
            times = (None, None) if mark is None else (mark["first_time_us"], mark["last_time_us"])
            key = [gap[name] for name in SYMBOL]
            ends = [*(span or (None, None)), *times, gap["after_time_us"], gap["detected_time_us"]]
            found.append([*key, gap["missing"], *ends])
    return found


def _count(t: Transaction, p: Any) -> Found:
    rows = [row for row in _own(t, "trades", p) if p["first_id"] <= row["trade_id"] <= p["last_id"]]
    return [
        [hour, len(own), len({row["trade_id"] for row in own})] for hour, own in _by(rows, _HOUR_US).items()
    ]


_MISSING: Final = (*SYMBOL, "first_trade_id", "last_trade_id", "after_time_us", "before_time_us")

UPKEEP: Final[dict[str, Statement]] = {
    retention._SYMBOLS: _expired_symbols,
    retention_state.BEGIN: _begin_retention,
    retention_state.ADD: _add_retention,
    retention_state.END: _end_retention,
    dead_letters.EXPIRE: _expire_letters,
    trade_conflicts.EXPIRE: _expire_conflicts(
        trade_conflicts.NAME, ("trade_time_us", "stored_trade_time_us")
    ),
    quote_conflicts.EXPIRE: _expire_conflicts(quote_conflicts.NAME, ("received_time_us", "received_time_us")),
    rebuild._MARKS: _marked_symbols,
    rebuild._WHOLE_FROM: _whole_from,
    rebuild._MINUTES: _minutes,
    rebuild._DELETE: _delete_candles,
    rebuild._AGGREGATE: _aggregate,
    rebuild._DELETE_TOP: _delete_top,
    rebuild._NEWEST: _newest_top,
    audit._HOURS: _hours,
    audit._MISSING: _columns("missing_trades", _MISSING),
    audit._ABSENT: lambda t, _: [
        [*(row[name] for name in SYMBOL), row["absent"], row["proof"]]
        for row in t.rows("trade_gaps")
        if row["absent"]
    ],
    audit._MARKS: _columns("high_water_marks", (*SYMBOL, "first_id", "last_id"), table_name=trades.NAME),
    audit._RETAINED: _retained,
    audit._TRADE_CONFLICTS: _conflicts(trade_conflicts.NAME, "trade_id", trades.NAME),
    audit._QUOTE_CONFLICTS: _conflicts(quote_conflicts.NAME, "update_id", book_tickers.NAME),
    audit._COUNT: _count,
    dead_letters.REJECTED: _rejected,
    trade_gaps.OUTSIDE: _gaps_outside,
}
BEGINNINGS: Final[tuple[tuple[str, Statement], ...]] = (
    ("SELECT max(id), count(*)", _window),
    *(
        (f'DELETE FROM "{table}" WHERE venue = ', _delete_old)  # noqa: S608 - compared, not run
        for table in (trades.NAME, book_tickers.NAME, candles_1m.NAME)
    ),
)
"""Statements that are generated for each table."""
