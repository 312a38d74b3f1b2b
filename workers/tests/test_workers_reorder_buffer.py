"""Reorder buffer: order, gaps, unresolved ids, absent ids, duplicates."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketfeed_service.id_ranges import IdRange, of_ids
from marketfeed_wire import Trade
from marketfeed_workers.stream.reorder_buffer import IncreasingIds, ReorderBuffer


def trade(trade_id: int) -> Trade:
    return Trade("binance_us", "BTCUSDT", trade_id, "1.0", "2.0", False, 1, 1, 1)


def ids(trades: list[Trade]) -> list[int]:
    return [each.trade_id for each in trades]


def test_reorder_buffer_releases_contiguous_trades_at_once() -> None:
    sequence = ReorderBuffer()
    assert [ids(sequence.arrive(trade(n)).ready) for n in (7, 8, 9)] == [[7], [8], [9]]
    assert sequence.missing() == []


def test_reorder_buffer_buffers_until_the_gap_is_filled() -> None:
    sequence = ReorderBuffer()
    sequence.arrive(trade(1))
    assert sequence.arrive(trade(4)) == ([], IdRange(2, 3))
    assert sequence.arrive(trade(5)) == ([], None)
    assert sequence.arrive(trade(8)) == ([], IdRange(6, 7))
    assert ids(sequence.arrive(trade(3)).ready) == []
    assert sequence.gaps() == [IdRange(2, 2), IdRange(6, 7)]
    assert ids(sequence.arrive(trade(2)).ready) == [2, 3, 4, 5]


def test_reorder_buffer_skips_absent_ids() -> None:
    sequence = ReorderBuffer()
    sequence.arrive(trade(1))
    sequence.arrive(trade(5))
    assert ids(sequence.mark_absent(IdRange(3, 3))) == []
    assert sequence.gaps() == [IdRange(2, 2), IdRange(4, 4)]
    assert ids(sequence.mark_absent(IdRange(4, 4))) == []
    assert ids(sequence.arrive(trade(2)).ready) == [2, 5]
    assert sequence.missing() == []


def test_reorder_buffer_flush_keeps_missing_ids_unresolved() -> None:
    sequence = ReorderBuffer()
    sequence.arrive(trade(1))
    sequence.arrive(trade(4))
    assert ids(sequence.flush()) == [4]
    assert sequence.unresolved == [IdRange(2, 3)]
    assert ids(sequence.arrive(trade(5)).ready) == [5]
    assert ids(sequence.arrive(trade(2)).ready) == [2]
    assert ids(sequence.arrive(trade(2)).ready) == []
    assert sequence.duplicates == 1
    assert sequence.mark_absent(IdRange(3, 3)) == []
    assert sequence.missing() == []


def test_reorder_buffer_resumes_after_a_checkpoint() -> None:
    sequence = ReorderBuffer()
    sequence.resume_after(10, [IdRange(3, 4)])
    assert sequence.arrive(trade(13)) == ([], IdRange(11, 12))
    assert ids(sequence.arrive(trade(4)).ready) == [4]
    assert sequence.missing() == [IdRange(3, 3), IdRange(11, 12)]


@given(st.permutations(range(1, 25)), st.sets(st.integers(1, 24)), st.integers(0, 3))
def test_reorder_buffer_releases_any_order_with_duplicates_once_and_in_order(
    order: list[int], repeated: set[int], lead: int
) -> None:
    sequence = ReorderBuffer()
    out = ids(sequence.arrive(trade(0)).ready)
    for each in [*order[:lead], *sorted(repeated & set(order[:lead])), *order[lead:], *sorted(repeated)]:
        out += ids(sequence.arrive(trade(each)).ready)
    assert out == list(range(25))
    assert sequence.missing() == []
    assert not sequence.buffered


@given(st.sets(st.integers(1, 60), min_size=1), st.data())
def test_reorder_buffer_ids_are_published_missing_or_absent(seen: set[int], data: st.DataObject) -> None:
    sequence = ReorderBuffer()
    out = ids(sequence.arrive(trade(0)).ready)
    absent: set[int] = set()
    for each in data.draw(st.permutations(sorted(seen))):
        out += ids(sequence.arrive(trade(each)).ready)
        match data.draw(st.sampled_from(["on", "give up", "absent"])):
            case "give up":
                out += ids(sequence.flush())
            case "absent" if gaps := sequence.missing():
                gap = data.draw(st.sampled_from(gaps))
                gone = set(range(gap.first, gap.last + 1)) - seen
                for cut in of_ids(gone):
                    out += ids(sequence.mark_absent(cut))
                absent |= gone
    out += ids(sequence.flush())
    newest = max(seen)
    missing = {n for first, last in sequence.missing() for n in range(first, last + 1)}
    assert len(out) == len(set(out))
    assert set(out) == seen | {0}
    assert missing | set(out) | {n for n in absent if n <= newest} == set(range(newest + 1))
    assert not missing & set(out)


@given(st.lists(st.one_of(st.integers(1, 40), st.tuples(st.integers(1, 40), st.integers(0, 5)), st.none())))
def test_reorder_buffer_gaps_are_the_ids_missing_before_the_newest_buffered(
    steps: list[int | tuple[int, int] | None],
) -> None:
    """Apply steps: a number is a trade, a pair is a range of absent ids, None flushes."""
    sequence = ReorderBuffer()
    out = ids(sequence.arrive(trade(0)).ready)
    arrived, absent = {0}, set[int]()
    for step in steps:
        if step is None:
            out += ids(sequence.flush())
        elif isinstance(step, int):
            out += ids(sequence.arrive(trade(step)).ready)
            arrived.add(step)
        else:
            out += ids(sequence.mark_absent(IdRange(step[0], step[0] + step[1])))
            absent |= set(range(step[0], step[0] + step[1] + 1))
        assert sequence.expected is not None
        before_newest = set(range(sequence.expected, max(sequence.buffered, default=0) + 1))
        assert sequence.gaps() == of_ids(before_newest - sequence.buffered.keys() - absent)
        assert all(each >= sequence.expected for each in sequence.buffered), "it would be buffered forever"
    published = set(out) | set(ids(sequence.flush()))
    assert published == arrived
    assert len(out) == len(set(out))


@pytest.mark.parametrize("first_comes", ["the trade", "the report of its absence"])
def test_reorder_buffer_publishes_a_buffered_trade_reported_absent(first_comes: str) -> None:
    sequence = ReorderBuffer()
    sequence.arrive(trade(0))
    if first_comes == "the trade":
        sequence.arrive(trade(2))
        assert ids(sequence.mark_absent(IdRange(1, 2))) == [2]
    else:
        sequence.arrive(trade(4))
        assert ids(sequence.mark_absent(IdRange(2, 3))) == []
        sequence.arrive(trade(2))
        assert ids(sequence.arrive(trade(1)).ready) == [1, 2, 4]
    assert sequence.missing() == []


@pytest.mark.parametrize("given_up", [False, True], ids=["skipped", "flushed"])
def test_reorder_buffer_publishes_a_trade_with_a_tombstone_once(given_up: bool) -> None:
    sequence = ReorderBuffer()
    sequence.arrive(trade(0))
    sequence.arrive(trade(3))
    if given_up:
        assert ids(sequence.flush()) == [3]
    assert ids(sequence.mark_absent(IdRange(1, 2))) == ([] if given_up else [3])
    assert sequence.arrive(trade(0)).ready == sequence.arrive(trade(3)).ready == []
    assert ids(sequence.arrive(trade(2)).ready) == [2], "a received trade counts as absent"
    assert sequence.arrive(trade(2)).ready == []
    assert (sequence.missing(), sequence.duplicates) == ([], 3)


def test_reorder_buffer_cost_is_independent_of_its_size() -> None:
    """With a look at the missing ids for each trade, as in the worker; quadratic cost would take minutes."""
    sequence = ReorderBuffer()
    sequence.arrive(trade(0))
    for trade_id in range(2, 50_000):
        assert not sequence.arrive(trade(trade_id)).ready
        assert sequence.missing() == [IdRange(1, 1)]
    assert len(sequence.arrive(trade(1)).ready) == 49_999


def test_increasing_ids_detect_duplicates_but_not_gaps() -> None:
    ids = IncreasingIds()
    assert ids.newest is None
    assert [bool(ids.arrive(trade(n)).ready) for n in (5, 9, 7, 9, 5, 12)] == [
        True,
        True,
        True,
        False,
        False,
        True,
    ]
    assert (ids.newest, ids.duplicates, ids.missing(), ids.gaps()) == (12, 2, [], [])


def test_increasing_ids_resume_after_a_checkpoint() -> None:
    ids = IncreasingIds()
    ids.resume_after(40, [])
    assert ids.newest == 40
    assert [bool(ids.arrive(trade(n)).ready) for n in (39, 40, 41)] == [False, False, True]


def test_increasing_ids_memory_is_bounded() -> None:
    ids = IncreasingIds()
    last = 2 * ids.MAX_RECENT_IDS
    for n in range(0, last, 2):
        ids.arrive(trade(n))
    assert ids.arrive(trade(last - 1)).ready, "slightly out of order is a duplicate"
    assert ids.arrive(trade(last)).ready
    assert not ids.arrive(trade(1)).ready, "an id older than the kept ones is not known"
