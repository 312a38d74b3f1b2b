"""The effect of each statement of the consumer on the rows of `store.py`, implemented independently in Python.

A statement that is missing here is an error: a new one of the consumer has to be added.
"""

from collections.abc import Sequence
from decimal import Decimal
from hashlib import sha256
from typing import Any, Final

import msgspec

from marketfeed_consumers.admin import offsets
from marketfeed_consumers.database.tables import (
    book_tickers,
    candles_1m,
    consumer_offsets,
    dead_letters,
    high_water_marks,
    missing_trades,
    quote_conflicts,
    top_of_book,
    trade_conflicts,
    trade_gaps,
    trades,
)
from marketfeed_simtest.consumers.rows import MARK, SYMBOL, Found, Statement, age, merged_candles
from marketfeed_simtest.consumers.store import Row, Transaction
from marketfeed_simtest.consumers.upkeep import BEGINNINGS, UPKEEP

_NUMBERS: Final = {"price", "qty", "bid_price", "bid_qty", "ask_price", "ask_qty"}
_NAMES: Final = {"venue", "symbol", "origin"}


def run(transaction: Transaction, text: str, parameters: Any) -> Found:
    """Execute the statement; return its rows, or the number of changed rows.

    Args:
        transaction: transaction of the statement.
        text: text of the statement.
        parameters: parameters of the statement.
    """
    statement = _EXACT.get(text) or UPKEEP.get(text)
    if statement is None:
        statement = next((one for begin, one in BEGINNINGS if text.strip().startswith(begin)), None)
    if statement is None:
        raise NotImplementedError(f"unknown statement of the store: {text}")
    return statement(transaction, parameters)


# --- offsets ---


def _claim(t: Transaction, p: Any) -> Found:
    owner, now_us, *key = p
    row = t.get("consumer_offsets", *key)
    if row is None:
        return []
    new = {**row, "epoch": row["epoch"] + 1, "owner": owner, "updated_time_us": now_us}
    t.put("consumer_offsets", new)
    return [[new[name] for name in ("epoch", "next_offset", "topic_id", "leader_epoch", "refusal")]]


def _offsets_row(p: Sequence[Any], epoch: int, owner: str, now_us: int) -> Row:
    names = ("consumer_group", "topic", "partition", "topic_id", "next_offset", "leader_epoch")
    others = {
        "previous_offset": 0, "epoch": epoch, "owner": owner, "refusal": "", "updated_time_us": now_us,
    }  # fmt: skip
    return {**dict(zip(names, p, strict=True)), **others}


def _begin_offsets(t: Transaction, p: Any) -> Found:
    *values, owner, now_us = p
    if t.get("consumer_offsets", *values[:3]) is not None:
        return 0
    t.put("consumer_offsets", _offsets_row(values, 1, owner, now_us))
    return 1


def _identify(t: Transaction, p: Any) -> Found:
    topic_id, *key = p
    row = t.get("consumer_offsets", *key)
    if row is None or row["topic_id"]:
        return 0
    t.put("consumer_offsets", {**row, "topic_id": topic_id})
    return 1


def _refuse(t: Transaction, p: Any) -> Found:
    reason, now_us, *key, epoch = p
    row = t.get("consumer_offsets", *key)
    if row is None or row["epoch"] != epoch or row["refusal"]:
        return 0
    t.put("consumer_offsets", {**row, "refusal": reason, "updated_time_us": now_us})
    return 1


def _advance(t: Transaction, p: Any) -> Found:
    group, now_us, *columns = p
    moved = []
    for topic, number, previous, following, leader_epoch, epoch in zip(*columns, strict=True):
        row = t.get("consumer_offsets", group, topic, number)
        if row is None:
            t.put(
                "consumer_offsets",
                _offsets_row((group, topic, number, "", following, leader_epoch), epoch, "", now_us),
            )
            moved.append([""])
        elif row["epoch"] == epoch and row["next_offset"] == previous:
            new = {"previous_offset": previous, "next_offset": following, "leader_epoch": leader_epoch}
            t.put("consumer_offsets", {**row, **new, "updated_time_us": now_us})
            moved.append([row["owner"]])
    return moved


def _read_offsets(t: Transaction, p: Any) -> Found:
    group, topics = p
    names = ("topic", "partition", "epoch", "next_offset", "owner", "refusal", "leader_epoch")
    rows = t.rows("consumer_offsets", consumer_group=group)
    return [[row[name] for name in names] for row in rows if row["topic"] in topics]


def _set_offsets(t: Transaction, p: Any) -> Found:
    *values, now_us = p
    row = t.get("consumer_offsets", *values[:3])
    epoch = row["epoch"] + 1 if row else 1
    t.put("consumer_offsets", _offsets_row(values, epoch, "reset-offsets", now_us))
    return 1


# --- high-water marks, missing ranges, rows ---


def _load_marks(t: Transaction, p: Any) -> Found:
    found = []
    names = (*MARK, "version", "first_id", "last_id", "first_time_us", "last_time_us", "expired_below_id")
    for key in zip(*p, strict=True):
        row, state = t.get("high_water_marks", *key), t.get("retention_state", *key)
        if row is not None:
            limit = "expired_before_time_us" if key[0] == trades.NAME else "limit_time_us"
            found.append([*(row[name] for name in names), state[limit] if state else 0])
    return found


def _set_marks(t: Transaction, p: Any) -> Found:
    count = 0
    names = (*MARK, "version", "first_id", "last_id", "first_time_us", "last_time_us", "row_count")
    for values in zip(*p, strict=True):
        new = dict(zip(names, values, strict=True))
        row = t.get("high_water_marks", *values[:4])
        if row is not None:
            if row["version"] != new["version"] - 1:
                continue
            new["row_count"] += row["row_count"]
        t.put("high_water_marks", {"expired_below_id": 0, **(row or {}), **new})
        count += 1
    return count


def _load_missing(t: Transaction, p: Any) -> Found:
    names = (*SYMBOL, "first_trade_id", "last_trade_id", "after_time_us", "before_time_us")
    return [
        [row[name] for name in names]
        for key in zip(*p, strict=True)
        for row in t.rows("missing_trades", **dict(zip(SYMBOL, key, strict=True)))
    ]


def _open_missing(t: Transaction, p: Any) -> Found:
    now_us, *columns = p
    names = (*SYMBOL, "first_trade_id", "last_trade_id", "after_time_us", "before_time_us")
    for values in zip(*columns, strict=True):
        row = {**dict(zip(names, values, strict=True)), "noticed_time_us": now_us}
        t.put("missing_trades", row, is_new=True)
    return len(columns[0])


def _close_missing(t: Transaction, p: Any) -> Found:
    count = 0
    for key in zip(*p, strict=True):
        row = t.get("missing_trades", *key)
        if row is not None:
            t.delete("missing_trades", row)
            count += 1
    return count


def _copy(table: str, columns: Sequence[str]) -> Statement:
    def copy(t: Transaction, text: bytes) -> Found:
        lines = text.decode().splitlines()
        for line in lines:
            values = line.split("\t")
            t.put(table, {n: _value(n, v) for n, v in zip(columns, values, strict=True)}, is_new=True)
        return len(lines)

    return copy


def _value(name: str, text: str) -> Any:
    if text == "\\N":
        return None
    if name in _NAMES:
        return text
    if name in _NUMBERS:
        return Decimal(text)
    return text == "t" if name == "buyer_is_maker" else int(text)


def _stored(table: str, columns: Sequence[str]) -> Statement:
    def stored(t: Transaction, p: Any) -> Found:
        *key, ids = p
        found = (t.get(table, *key, one) for one in dict.fromkeys(ids))
        return [[row[name] for name in columns] for row in found if row is not None]

    return stored


# --- derived rows, gap records, dead letters ---

_CANDLE_NUMBERS: Final = {"open", "high", "low", "close", "volume", "quote_volume", "buy_volume"}


def _merge_candles(t: Transaction, p: Any) -> Found:
    for values in zip(*p, strict=True):
        new = {
            name: Decimal(value) if name in _CANDLE_NUMBERS else value
            for name, value in zip(candles_1m.COLUMNS, values, strict=True)
        }
        held = t.get("candles_1m", *(new[name] for name in (*SYMBOL, "open_time_us")))
        t.put("candles_1m", merged_candles(held, new) if held else new)
    return len(p[0])


def _merge_tops(t: Transaction, p: Any) -> Found:
    for values in zip(*p, strict=True):
        new = {
            name: Decimal(value) if name in _NUMBERS else value
            for name, value in zip(top_of_book.COLUMNS, values, strict=True)
        }
        held = t.get("top_of_book", new["venue"], new["symbol"])
        if held is None or age(new) > age(held):
            t.put("top_of_book", new)
    return len(p[0])


def _merge_gap(t: Transaction, p: Any) -> Found:
    held = t.get("trade_gaps", *(p[name] for name in (*SYMBOL, "first_id")))
    if held is not None and held["updated_time_us"] >= p["updated_time_us"]:
        return 0
    lists = {name: msgspec.json.decode(p[name]) for name in ("missing", "absent")}
    t.put("trade_gaps", {**p, **lists})
    return 1


_LETTER: Final = (
    *("topic", "topic_id", "partition", "kafka_offset", "message_key", "value", "reason", "stored_time_us"),
    *SYMBOL, "trade_id",
)  # fmt: skip


def _add_letter(t: Transaction, p: Any) -> Found:
    row = dict(zip(_LETTER, p, strict=True))
    row["content_hash"] = "".join(
        "-" if row[name] is None else sha256(row[name]).hexdigest() for name in ("message_key", "value")
    )
    if t.get("dead_letters", *p[:4], row["content_hash"]) is not None:
        return 0
    t.put("dead_letters", row)
    return 1


def _add_conflict(table: str, columns: Sequence[str], key: Sequence[str]) -> Statement:
    def add(t: Transaction, p: Any) -> Found:
        numbers = {*_NUMBERS, *(f"stored_{name}" for name in _NUMBERS)}
        row = {n: Decimal(v) if n in numbers else v for n, v in zip(columns, p, strict=True)}
        held = t.get(table, *(row[name] for name in key))
        t.put(table, {**held, "messages": held["messages"] + 1} if held else {**row, "messages": 1})
        return 1

    return add


_TRADE_CONTENT: Final = ("trade_id", "price", "qty", "buyer_is_maker", "trade_time_us")
_QUOTE_CONTENT: Final = ("update_id", "bid_price", "bid_qty", "ask_price", "ask_qty")
_EXACT: Final[dict[str, Statement]] = {
    consumer_offsets.ACQUIRE: _claim,
    consumer_offsets.BEGIN: _begin_offsets,
    consumer_offsets.IDENTIFY: _identify,
    consumer_offsets.REFUSE: _refuse,
    consumer_offsets.ADVANCE: _advance,
    consumer_offsets.READ: _read_offsets,
    offsets._SET: _set_offsets,
    high_water_marks.LOAD: _load_marks,
    high_water_marks.SET: _set_marks,
    missing_trades.LOAD: _load_missing,
    missing_trades.OPEN: _open_missing,
    missing_trades.CLOSE: _close_missing,
    trades.COPY: _copy(trades.NAME, trades.COLUMNS),
    book_tickers.COPY: _copy(book_tickers.NAME, book_tickers.COLUMNS),
    trades.STORED: _stored(trades.NAME, _TRADE_CONTENT),
    book_tickers.STORED: _stored(book_tickers.NAME, _QUOTE_CONTENT),
    candles_1m.MERGE: _merge_candles,
    top_of_book.MERGE: _merge_tops,
    trade_gaps.MERGE: _merge_gap,
    dead_letters.ADD: _add_letter,
    trade_conflicts.ADD: _add_conflict(
        trade_conflicts.NAME,
        trade_conflicts._COLUMNS,
        (*SYMBOL, "trade_id", "trade_time_us", "price", "qty", "buyer_is_maker"),
    ),
    quote_conflicts.ADD: _add_conflict(
        quote_conflicts.NAME, quote_conflicts._COLUMNS, (*SYMBOL, "update_id", *_QUOTE_CONTENT[1:])
    ),
    "SET CONSTRAINTS ALL IMMEDIATE": lambda _t, _p: 0,
}
