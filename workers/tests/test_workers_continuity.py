"""The trade sequence: order, holes, late arrivals, absence, duplicates."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketfeed_wire import Trade
from marketfeed_workers.stream.id_ranges import IdRange, merged, of_ids, total, without
from marketfeed_workers.stream.reorder_buffer import IncreasingIds, ReorderBuffer


def trade(trade_id: int) -> Trade:
    return Trade("binance_us", "BTCUSDT", trade_id, "1.0", "2.0", False, 1, 1, 1)


def ids(trades: list[Trade]) -> list[int]:
    return [each.trade_id for each in trades]


def test_contiguous_trades_pass_at_once() -> None:
    sequence = ReorderBuffer()
    assert [ids(sequence.arrive(trade(n)).ready) for n in (7, 8, 9)] == [[7], [8], [9]]
    assert sequence.missing() == []


def test_a_jump_holds_back_until_the_hole_is_filled() -> None:
    sequence = ReorderBuffer()
    sequence.arrive(trade(1))
    assert sequence.arrive(trade(4)) == ([], IdRange(2, 3))
    assert sequence.arrive(trade(5)) == ([], None)
    assert sequence.arrive(trade(8)) == ([], IdRange(6, 7))
    assert ids(sequence.arrive(trade(3)).ready) == []
    assert sequence.gaps() == [IdRange(2, 2), IdRange(6, 7)]
    assert ids(sequence.arrive(trade(2)).ready) == [2, 3, 4, 5]


def test_absent_ids_are_passed_over() -> None:
    sequence = ReorderBuffer()
    sequence.arrive(trade(1))
    sequence.arrive(trade(5))
    assert ids(sequence.mark_absent(IdRange(3, 3))) == []
    assert sequence.gaps() == [IdRange(2, 2), IdRange(4, 4)]
    assert ids(sequence.mark_absent(IdRange(4, 4))) == []
    assert ids(sequence.arrive(trade(2)).ready) == [2, 5]
    assert sequence.missing() == []


def test_giving_up_goes_on_and_still_wants_what_is_late() -> None:
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


def test_resumes_after_what_an_earlier_process_published() -> None:
    sequence = ReorderBuffer()
    sequence.resume_after(10, [IdRange(3, 4)])
    assert sequence.arrive(trade(13)) == ([], IdRange(11, 12))
    assert ids(sequence.arrive(trade(4)).ready) == [4]
    assert sequence.missing() == [IdRange(3, 3), IdRange(11, 12)]


@given(st.permutations(range(1, 25)), st.sets(st.integers(1, 24)), st.integers(0, 3))
def test_any_order_with_repeats_comes_out_once_and_in_order(
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
def test_every_id_is_published_missing_or_absent_and_never_two_of_them(
    seen: set[int], data: st.DataObject
) -> None:
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
def test_holes_are_what_is_not_there_before_the_newest_that_waits(
    steps: list[int | tuple[int, int] | None],
) -> None:
    """A number arrives, a pair is told absent, None gives up."""
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
        assert as_set(sequence.gaps()) == before_newest - sequence.buffered.keys() - absent
        assert sequence.gaps() == merged(sequence.gaps())
        assert all(each >= sequence.expected for each in sequence.buffered), "it would wait for ever"
    published = set(out) | set(ids(sequence.flush()))
    assert published == arrived
    assert len(out) == len(set(out))


@pytest.mark.parametrize("first_comes", ["the trade", "the word that it does not exist"])
def test_a_trade_that_the_venue_calls_absent_is_published_all_the_same(first_comes: str) -> None:
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


@pytest.mark.parametrize("given_up", [False, True], ids=["passed over", "late"])
def test_a_trade_that_comes_after_the_venue_has_called_it_absent_is_published_once(given_up: bool) -> None:
    sequence = ReorderBuffer()
    sequence.arrive(trade(0))
    sequence.arrive(trade(3))
    if given_up:
        assert ids(sequence.flush()) == [3]
    assert ids(sequence.mark_absent(IdRange(1, 2))) == ([] if given_up else [3])
    assert sequence.arrive(trade(0)).ready == sequence.arrive(trade(3)).ready == []
    assert ids(sequence.arrive(trade(2)).ready) == [2], "what came exists"
    assert sequence.arrive(trade(2)).ready == []
    assert (sequence.missing(), sequence.duplicates) == ([], 3)


def test_thousands_that_wait_cost_no_more_each_than_one() -> None:
    """With a look at what is missing for each that comes, as the worker does; by the square it would take minutes."""
    sequence = ReorderBuffer()
    sequence.arrive(trade(0))
    for trade_id in range(2, 50_000):
        assert not sequence.arrive(trade(trade_id)).ready
        assert sequence.missing() == [IdRange(1, 1)]
    assert len(sequence.arrive(trade(1)).ready) == 49_999


ranges = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 9)).map(lambda r: IdRange(r[0], r[0] + r[1])))


def as_set(given_ranges: list[IdRange]) -> set[int]:
    return {n for first, last in given_ranges for n in range(first, last + 1)}


@given(ranges, st.tuples(st.integers(0, 40), st.integers(0, 9)))
def test_ranges_behave_like_sets(some: list[IdRange], cut: tuple[int, int]) -> None:
    whole = merged(some)
    taken = IdRange(cut[0], cut[0] + cut[1])
    assert as_set(whole) == as_set(some)
    assert total(whole) == len(as_set(some))
    assert as_set(without(whole, taken)) == as_set(whole) - as_set([taken])
    assert of_ids(as_set(whole)) == whole


def test_where_ids_only_increase_repeats_are_told_and_nothing_is_missing() -> None:
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


def test_where_ids_only_increase_an_earlier_process_is_gone_on_from() -> None:
    ids = IncreasingIds()
    ids.resume_after(40, [])
    assert ids.newest == 40
    assert [bool(ids.arrive(trade(n)).ready) for n in (39, 40, 41)] == [False, False, True]


def test_where_ids_only_increase_a_bounded_number_of_them_is_remembered() -> None:
    ids = IncreasingIds()
    last = 2 * ids.MAX_RECENT_IDS
    for n in range(0, last, 2):
        ids.arrive(trade(n))
    assert ids.arrive(trade(last - 1)).ready, "somewhat late is not a repeat"
    assert ids.arrive(trade(last)).ready
    assert not ids.arrive(trade(1)).ready, "what is older than all that is remembered counts as known"
