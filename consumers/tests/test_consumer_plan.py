"""A plan contains the new messages and nothing else, for any batches, order and duplicates of the same messages."""

from collections import Counter
from typing import Any

import pytest
from consumer_market import ids, quote, record, trade
from hypothesis import given
from hypothesis import strategies as st

from marketfeed_consumers.kafka.decode import Batch, Partition, batch_of
from marketfeed_consumers.planning.plan import OffsetAdvance, Plan, RangesKey, plan, ranges_keys
from marketfeed_consumers.planning.stored_ranges import EMPTY_RANGES, StoredRanges
from marketfeed_wire import BookTicker, Gap, RejectedMessage, Trade, decode_rejected, encode

TABLES = {"trades": "trades", "book": "book_tickers", "gaps": "trade_gaps"}
symbols = st.sampled_from(["AAA", "BBB"])
messages = st.lists(
    st.one_of(
        st.builds(trade, ids, symbols),
        st.builds(quote, ids, symbols),
        st.just(b"junk"),
    ),
    max_size=50,
)


class Store:
    """An in-memory model of the transaction's effect on the tables and its checks."""

    def __init__(self) -> None:
        self.ranges: dict[RangesKey, StoredRanges] = {}
        self.rows: dict[RangesKey, dict[int, Any]] = {}
        self.volumes: Counter[tuple[str, int]] = Counter()
        self.tops: dict[str, BookTicker] = {}
        self.dead_letter = 0

    def stored_ranges(self, batch: Batch) -> dict[RangesKey, StoredRanges]:
        return {key: self.ranges.get(key, EMPTY_RANGES) for key in ranges_keys(batch)}

    def apply(self, made: Plan) -> None:
        for table, rows, id_of in (
            ("trades", made.trades, lambda one: one.trade_id),
            ("book_tickers", made.quotes, lambda one: one.update_id),
        ):
            for key, new in rows.new.items():
                held = self.rows.setdefault((table, *key), {})
                for one in new:
                    assert id_of(one) not in held, "COPY would raise UniqueViolation"
                    held[id_of(one)] = one
            for key, unverified in rows.unverified.items():
                held = self.rows.setdefault((table, *key), {})
                for one in unverified:
                    held.setdefault(id_of(one), one)
        for key, (before, after) in made.ranges.items():
            assert self.ranges.get(key, EMPTY_RANGES) == before
            self.ranges[key] = after
        for candle in made.candles:
            self.volumes[candle.symbol, candle.open_time_us] += candle.trade_count
        for one in made.tops:
            assert one.symbol not in self.tops or self.tops[one.symbol].update_id < one.update_id
            self.tops[one.symbol] = one
        self.dead_letter += len(made.dead_letters)


def from_zero(batch: Batch) -> dict[Partition, int]:
    return dict.fromkeys(batch.next_offsets, 0)


def topic_of(message: Trade | BookTicker | bytes) -> str:
    return "book" if isinstance(message, BookTicker) else "trades"


@given(messages, st.lists(st.integers(1, 12)))
def test_plan_of_any_batches_stores_each_message_once(
    sent: list[Trade | BookTicker | bytes], sizes: list[int]
) -> None:
    records = [record(one, offset, topic_of(one)) for offset, one in enumerate(sent)]
    store = Store()
    while records:
        size = sizes.pop() if sizes else 10
        batch = batch_of(records[:size], TABLES)
        store.apply(plan(batch, store.stored_ranges(batch), from_zero(batch)))
        records = records[size:]
    distinct = {
        (topic_of(one), one.symbol, one.trade_id): one for one in reversed(sent) if isinstance(one, Trade)
    }
    quotes = {
        (topic_of(one), one.symbol, one.update_id): one
        for one in reversed(sent)
        if isinstance(one, BookTicker)
    }
    stored = {(table, symbol, i) for (table, _, symbol, _), held in store.rows.items() for i in held}
    assert stored == {("trades", s, i) for _, s, i in distinct} | {
        ("book_tickers", s, i) for _, s, i in quotes
    }
    assert store.dead_letter == sum(one == b"junk" for one in sent)
    assert sum(store.volumes.values()) == len(distinct)
    newest = {s: max(i for _, t, i in quotes if t == s) for _, s, _ in quotes}
    assert {s: one.update_id for s, one in store.tops.items()} == newest


def only(*sent: Trade | BookTicker | bytes) -> Batch:
    return batch_of([record(one, offset, topic_of(one)) for offset, one in enumerate(sent)], TABLES)


def stored_ranges(batch: Batch, **ranges: StoredRanges) -> dict[RangesKey, StoredRanges]:
    return {key: ranges.get(key[0], EMPTY_RANGES) for key in ranges_keys(batch)}


def test_copy_text_of_rows_is_parsed_by_copy() -> None:
    batch = only(trade(3, "A\\B", event_time_us=None), quote(9))
    made = plan(batch, stored_ranges(batch), from_zero(batch))
    assert made.trades.copy_text == [
        b"binance_us\tA\\\\B\t0\t3\t60010.03000000\t0.00000004\tt\t1723161601500000\t\\N\t1723161601500500\tstream\n"
    ]
    assert made.quotes.copy_text == [
        b"binance_us\tBTCUSDT\t0\t9\t60009.5\t1.25000000\t60010\t0.5\t\\N\t1723161600009000\n"
    ]


def test_plan_looks_up_a_quote_at_or_below_the_high_water_mark() -> None:
    batch = only(quote(7), quote(12), quote(12), quote(5))
    made = plan(
        batch, stored_ranges(batch, book_tickers=StoredRanges(1, 2, 10, 0, 0, 0, 0)), from_zero(batch)
    )
    (unverified,), (new,) = made.quotes.unverified.values(), made.quotes.new.values()
    assert [one.update_id for one in unverified] == [5, 7]
    assert [one.update_id for one in new] == [12]
    assert made.quotes.duplicates == 1
    assert [one.update_id for one in made.tops] == [12]


def test_plan_with_verify_rows_looks_up_every_row() -> None:
    batch = only(trade(1), quote(1))
    made = plan(batch, stored_ranges(batch), from_zero(batch), verify_rows=True)
    assert not made.trades.new
    assert not made.quotes.new
    assert not made.candles
    assert [len(rows.unverified) for rows in (made.trades, made.quotes)] == [1, 1]


def test_plan_advances_offsets_over_gaps_in_the_log() -> None:
    records = [
        record(trade(1), 7, partition=1, leader_epoch=3),
        record(trade(2), 9, partition=1, leader_epoch=4),
    ]
    batch = batch_of([*records, record(b"", 4, leader_epoch=-1)], TABLES)
    made = plan(batch, stored_ranges(batch), {("trades", 0): 4, ("trades", 1): 5})
    assert made.offset_advances == [
        OffsetAdvance("trades", 0, 4, 5, leader_epoch=-1),
        OffsetAdvance("trades", 1, 5, 10, leader_epoch=4),
    ]


@pytest.mark.parametrize("order", [1, -1], ids=["the newer last", "the newer first"])
def test_plan_keeps_the_newer_of_two_gap_records(order: int) -> None:
    gaps = [
        Gap(
            venue="v",
            symbol="AAA",
            first_id=5,
            last_id=9,
            state="open",
            missing=[],
            absent=[],
            proof="",
            detected_time_us=1,
            updated_time_us=updated,
        )
        for updated in (10, 20)
    ]
    (kept,) = plan(Batch(gaps=gaps[::order]), {}, {}).gaps
    assert kept.updated_time_us == 20


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        pytest.param(b"", "truncated", id="nothing"),
        pytest.param(b"\xff\xfe", "", id="no UTF-8"),
        pytest.param(b'{"venue":"v"}', "symbol", id="a field is missing"),
    ],
)
def test_dead_letter_has_the_bytes_and_the_reason(value: bytes, reason: str) -> None:
    (letter,) = only(value).dead_letters
    assert (letter.value, letter.message_key, letter.kafka_offset) == (value, b"junk", 0)
    assert reason in letter.reason
    assert "\x00" not in letter.reason


def test_dead_letter_of_a_rejected_message_has_the_workers_reason() -> None:
    message = RejectedMessage(
        venue="binance", symbol="BTCUSDT", stream="trade", trade_id=7, reason="impossible_time",
        details="trade time 1970-01-21 is impossible", raw=b"\xff{}", received_time_us=1,
    )  # fmt: skip
    values = [encode(message), b"junk"]
    sent = [record(value, offset, "rejected") for offset, value in enumerate(values)]
    batch = batch_of(sent, {"rejected": "dead_letters"})
    assert [letter.value for letter in batch.dead_letters] == values
    assert batch.dead_letters[0].reason.startswith("rejected by the worker: impossible_time: trade time 1970")
    assert "rejected by the worker" not in batch.dead_letters[1].reason
    assert batch.next_offsets == {("rejected", 0): 2}
    assert decode_rejected(values[0]) == message


def test_revoked_partitions_are_removed_from_the_batch() -> None:
    batch = batch_of([record(trade(1), 0), record(trade(2, "ETH"), 0, partition=1)], TABLES)
    rest = batch.without_partitions({("trades", 0)}, TABLES)
    assert list(rest.trades) == [("binance_us", "ETH", 0)]
    assert rest.next_offsets == {("trades", 1): 1}
