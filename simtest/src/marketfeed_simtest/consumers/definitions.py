"""What each derived table must hold, from all rows that were ever stored; and what an audit must say."""

from collections import defaultdict
from collections.abc import Iterable
from itertools import pairwise
from typing import Any

from marketfeed_consumers.admin.audit_report import Report
from marketfeed_simtest.clock import START_SECONDS
from marketfeed_simtest.consumers.meaning import Meaning, Symbol, ranges
from marketfeed_simtest.consumers.oracle import Oracle
from marketfeed_simtest.consumers.rows import candle_of
from marketfeed_simtest.consumers.store import Key, Row

_MINUTE_US = 60_000_000
_MARGIN_US = 2 * 3_600_000_000


def judge_tables(oracle: Oracle) -> None:
    """Hold each derived table against its definition."""
    _judge_candles(oracle)
    _judge_missing(oracle)
    _judge_marks(oracle)
    _judge_tops(oracle)
    _judge_gaps(oracle)
    _judge_conflicts(oracle, "trades", "trade_conflicts")
    _judge_conflicts(oracle, "book_tickers", "quote_conflicts")


def _by_symbol(keys: Iterable[Key]) -> dict[Symbol, list[int]]:
    found: defaultdict[Symbol, list[int]] = defaultdict(list)
    for venue, symbol, series, one in keys:
        found[venue, symbol, series].append(one)
    return {symbol: sorted(ids) for symbol, ids in found.items()}


def _judge_candles(oracle: Oracle) -> None:
    limit = oracle.retention.limit("candles_1m")
    minutes: defaultdict[Key, list[Row]] = defaultdict(list)
    for key, row in oracle.ever["trades"].items():
        minutes[*key[:3], row["trade_time_us"] // _MINUTE_US * _MINUTE_US].append(row)
    expected = {key: candle_of(rows) for key, rows in minutes.items() if key[3] >= limit}
    held = {key: row for key, row in oracle.tables["candles_1m"].items() if key[3] >= limit}
    for key in sorted(expected.keys() | held.keys()):
        if held.get(key) != expected.get(key):
            oracle.violate("candles", f"{key}: {held.get(key)}, expected {expected.get(key)}")


def _gaps(ids: list[int]) -> list[tuple[int, int]]:
    return [(one + 1, following - 1) for one, following in pairwise(ids) if following > one + 1]


def _judge_missing(oracle: Oracle) -> None:
    def time_us(symbol: Symbol, trade_id: int) -> int:
        return int(oracle.ever["trades"][*symbol, trade_id]["trade_time_us"])

    expected = {
        (*symbol, first, last, time_us(symbol, first - 1), time_us(symbol, last + 1))
        for symbol, ids in _by_symbol(oracle.ever["trades"]).items()
        for first, last in _gaps(ids)
    }
    held = {
        (*key, row["last_trade_id"], row["after_time_us"], row["before_time_us"])
        for key, row in oracle.tables["missing_trades"].items()
    }
    if held != expected:
        oracle.violate("missing", f"not held {sorted(expected - held)}, held {sorted(held - expected)}")


def _judge_marks(oracle: Oracle) -> None:
    names = ("first_id", "last_id", "first_time_us", "last_time_us")
    for table, time in (("trades", "trade_time_us"), ("book_tickers", "received_time_us")):
        rows = oracle.ever[table]
        expected = {
            (table, *symbol): (ids[0], ids[-1], *(rows[*symbol, one][time] for one in (ids[0], ids[-1])))
            for symbol, ids in _by_symbol(rows).items()
        }
        held = {key: row for key, row in oracle.tables["high_water_marks"].items() if key[0] == table}
        spans = {key: tuple(row[name] for name in names) for key, row in held.items()}
        if spans != expected:
            oracle.violate("marks", f"{spans}, expected {expected}")
        if table == "trades":
            counts = {key: row["row_count"] for key, row in held.items()}
            numbers = {(table, *key): len(ids) for key, ids in _by_symbol(oracle.ever[table]).items()}
            if counts != numbers:
                oracle.violate("marks", f"counted {counts}, expected {numbers}")


def _judge_tops(oracle: Oracle) -> None:
    newest: dict[Key, Row] = {}
    for key, row in sorted(oracle.ever["book_tickers"].items()):
        newest[key[:2]] = row
    held = oracle.tables["top_of_book"]
    content = ("id_series", "update_id", "bid_price", "bid_qty", "ask_price", "ask_qty")
    names = (*content, "event_time_us", "received_time_us")
    for key in sorted(newest.keys() | held.keys()):
        one, other = held.get(key), newest.get(key)
        if one is None or other is None or [one[name] for name in names] != [other[name] for name in names]:
            oracle.violate("tops", f"{key}: {one}, expected {other}")


def _judge_gaps(oracle: Oracle) -> None:
    """Check that the newest record of each gap is stored."""
    newest: dict[Key, Meaning] = {}
    for meaning in oracle.meanings.values() if "trade_gaps" not in oracle.changed_topics else ():
        if meaning.kind == "gap":
            key = (*meaning.symbol, meaning.id)
            newest[key] = max(newest.get(key, meaning), meaning, key=lambda one: one.content)
    for key, meaning in newest.items():
        row = oracle.tables["trade_gaps"].get(key, {})
        lists = (ranges(row.get(name, ())) for name in ("missing", "absent"))
        held = (row.get("last_id"), row.get("state"), *lists, row.get("proof"))
        if held != meaning.others:
            oracle.violate("gaps", f"{key}: {held}, expected {meaning.others}")


def _judge_conflicts(oracle: Oracle, table: str, conflicts: str) -> None:
    if oracle.retention.limit(conflicts) > START_SECONDS * 1e6:
        return  # retention has deleted some
    for key, contents in oracle.repeats(table).items():
        for content, count in contents.items():
            found = [
                row["messages"]
                for own, row in oracle.tables[conflicts].items()
                if own[:4] == key and oracle._content(table, row) == content
            ]
            is_lost = not found and table not in oracle.changed_topics
            if is_lost or (found and oracle.is_counted(table) and found != [count]):
                oracle.violate(
                    "conflict_lost", f"{table} {key} {content}: counted {found}, came {count} times"
                )


def judge_audit(oracle: Oracle, report: Report) -> None:
    """Hold an audit's answer against what is missing."""
    named: defaultdict[Symbol, dict[int, str]] = defaultdict(dict)
    for hour in report.hours:
        for span in hour.missing:
            for one in range(span.first_id, span.last_id + 1):
                named[hour.venue, hour.symbol, hour.id_series][one] = span.resolution
    is_whole = True
    for symbol, ids in _by_symbol(oracle.ever["trades"]).items():
        is_whole = _judge_named(oracle, report, symbol, ids, named[symbol]) and is_whole
    contradicted = oracle.tables["trade_conflicts"] or oracle.tables["quote_conflicts"]
    if contradicted and report.is_complete:
        oracle.violate("audit", "complete, but there are conflicts")
    is_reported = any(row["trade_id"] is not None for row in oracle.tables["dead_letters"].values())
    if is_whole and not contradicted and not is_reported and oracle.ever["trades"] and not report.is_complete:
        oracle.violate("audit", f"not complete, and nothing is missing: {_why(report)}")


def _judge_named(
    oracle: Oracle, report: Report, symbol: Symbol, ids: list[int], named: dict[int, str]
) -> bool:
    """Hold what the audit names of a symbol against its ids; whether none of them is open."""
    missing = {one for first, last in _gaps(ids) for one in range(first, last + 1)}
    if untrue := set(ids) & named.keys():
        oracle.violate("audit", f"{symbol}: it names {sorted(untrue)[:3]}, which are stored")
    if silent := missing - named.keys():
        oracle.violate("audit", f"{symbol}: it does not name {sorted(silent)[:3]}")
    absent, limit = _absent(oracle)[symbol], oracle.retention.limit("trades")
    for one in missing & named.keys():
        sides = (max(held for held in ids if held < one), min(held for held in ids if held > one))
        newest_us = max(oracle.ever["trades"][*symbol, side]["trade_time_us"] for side in sides)
        if named[one] == "absent" and one not in absent:
            oracle.violate("audit", f"{symbol}: {one} was never proven absent")
        if named[one] == "expired" and newest_us >= limit:
            oracle.violate("audit", f"{symbol}: {one} is no older than {limit}: {newest_us}")
        if newest_us >= limit + _MARGIN_US and one not in absent and report.is_complete:
            oracle.violate("audit", f"{symbol}: complete, but {one} is missing")
    return all(named.get(one) in ("absent", "expired") for one in missing)


def _why(report: Report) -> list[Any]:
    return [hour for hour in report.hours if hour.unresolved or hour.duplicates or hour.uncounted]


def _absent(oracle: Oracle) -> defaultdict[Symbol, set[int]]:
    found: defaultdict[Symbol, set[int]] = defaultdict(set)
    for (venue, symbol, series, _), row in oracle.tables["trade_gaps"].items():
        for first, last in row["absent"]:
            found[venue, symbol, series] |= set(range(first, last + 1))
    return found
