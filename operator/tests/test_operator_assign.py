"""Assignment of symbols to shards: complete, bounded, sticky; and a moving symbol is always read."""

import hypothesis.strategies as st
import pytest
from hypothesis import assume, given

from marketfeed_operator.assign import MERGE_FILL, ShardAssignment, assign, moves, transition

SYMBOLS = [f"S{number:03}" for number in range(60)]
symbol_sets = st.frozensets(st.sampled_from(SYMBOLS))
sizes = st.integers(1, 20)
anything = st.dictionaries(st.integers(0, 12), symbol_sets, max_size=8)


def sizes_of(shards):
    return {shard: len(symbols) for shard, symbols in shards.items()}


def changed(before, after):
    return {shard for shard in {*before, *after} if before.get(shard) != after.get(shard)}


def moved(before, after):
    home = {symbol: shard for shard, symbols in before.items() for symbol in symbols}
    return {s for shard, symbols in after.items() for s in symbols if home.get(s, shard) != shard}


@given(anything, symbol_sets, sizes)
def test_assign_puts_each_symbol_into_exactly_one_shard_within_the_limit(previous, symbols, size):
    shards = assign(previous, symbols, size)
    assert sorted(s for held in shards.values() for s in held) == sorted(symbols)
    assert all(0 < len(held) <= size for held in shards.values())


@given(anything, symbol_sets, sizes)
def test_assign_is_idempotent(previous, symbols, size):
    shards = assign(previous, symbols, size)
    assert assign(shards, symbols, size) == shards
    assert assign(shards, sorted(symbols, reverse=True), size) == shards


@given(anything, symbol_sets, sizes, st.sampled_from(SYMBOLS))
def test_assign_added_symbol_changes_one_shard(previous, symbols, size, new):
    assume(new not in symbols)
    before = assign(previous, symbols, size)
    after = assign(before, symbols | {new}, size)
    (shard,) = changed(before, after)
    assert after[shard] == before.get(shard, frozenset()) | {new}


@given(anything, symbol_sets, sizes, st.data())
def test_assign_removed_symbol_changes_one_shard_or_merges_it(previous, symbols, size, data):
    assume(symbols)
    gone = data.draw(st.sampled_from(sorted(symbols)))
    before = assign(previous, symbols, size)
    after = assign(before, symbols - {gone}, size)
    if len(changed(before, after)) > 1:
        (merged,) = set(before) - set(after)
        (taker,) = changed(before, after) - {merged}
        assert after[taker] == (before[taker] | before[merged]) - {gone}
        assert gone in before[taker] | before[merged]
        assert len(after[taker]) <= size * MERGE_FILL


@given(anything, symbol_sets, sizes, sizes)
def test_assign_smaller_shard_size_moves_only_the_excess(previous, symbols, size, smaller):
    assume(smaller < size)
    before = assign(previous, symbols, size)
    after = assign(before, symbols, smaller)
    assert len(moved(before, after)) == sum(max(0, held - smaller) for held in sizes_of(before).values())


@given(anything, symbol_sets, sizes, sizes)
def test_assign_larger_shard_size_only_merges_whole_shards(previous, symbols, size, larger):
    assume(larger > size)
    before = assign(previous, symbols, size)
    after = assign(before, symbols, larger)
    for shard, held in before.items():
        assert any(held <= target for target in after.values()), f"shard {shard} was split"
    # The fewest moves: a shard never receives more in a merge than it had.
    assert len(moved(before, after)) <= len(symbols) - max(sizes_of(before).values(), default=0)


@given(anything, symbol_sets, sizes)
def test_assign_merges_shards_that_fit_into_three_quarters_of_one(previous, symbols, size):
    smallest = sorted(sizes_of(assign(previous, symbols, size)).values())[:2]
    assert len(smallest) < 2 or sum(smallest) > size * MERGE_FILL


@pytest.mark.parametrize(
    ("previous", "symbols", "size", "expected"),
    [
        ({}, "", 2, {}),
        ({}, "ABC", 2, {0: "AB", 1: "C"}),
        ({0: "AB", 1: "CD"}, "ABD", 2, {0: "AB", 1: "D"}),
        ({0: "AB", 1: "CD"}, "ABCDE", 2, {0: "AB", 1: "CD", 2: "E"}),
        ({0: "AB", 2: "CD"}, "ABCDE", 2, {0: "AB", 1: "E", 2: "CD"}),
        ({0: "ABC", 1: "D"}, "ABCDE", 4, {0: "ABCE", 1: "D"}),
        ({0: "ABCD"}, "ABCD", 2, {0: "AB", 1: "CD"}),
        ({0: "ABCD", 1: "EFG"}, "ABE", 4, {0: "ABE"}),
        ({0: "AB", 1: "AB"}, "AB", 2, {0: "AB"}),
    ],
    ids=[
        "nothing", "from scratch", "symbol removed", "no room: new shard", "free number is used first",
        "fullest shard receives the new one", "shrunk", "small shards are merged", "duplicate: lower shard "
        "keeps it",
    ],
)  # fmt: skip
def test_assign_table(previous, symbols, size, expected):
    shards = {shard: set(held) for shard, held in previous.items()}
    assert assign(shards, symbols, size) == {shard: frozenset(held) for shard, held in expected.items()}


@given(anything, symbol_sets, sizes, st.lists(st.tuples(symbol_sets, sizes, st.booleans()), max_size=8))
def test_transition_keeps_every_kept_symbol_read(previous, symbols, size, changes):
    """For any sequence of changes, with workers that start or not: what was live stays read until it is live again."""
    target = assign(previous, symbols, size)
    now = transition({}, target, {})
    live = {shard: reading.symbols for shard, reading in now.items()}  # all of them started
    for kept, new_size, workers_follow in changes:
        target = assign({shard: reading.owned for shard, reading in now.items()}, kept, new_size)
        following = transition(now, target, live)
        read_before = {
            s for shard, held in live.items() for s in held if shard in now and s in now[shard].symbols
        }
        still_read = {
            s for shard, reading in following.items() for s in reading.symbols & live.get(shard, frozenset())
        }
        assert read_before & kept <= still_read
        now = following
        # Workers drop symbols at once; they subscribe to new ones later.
        live = {
            shard: reading.symbols if workers_follow else reading.symbols & live.get(shard, frozenset())
            for shard, reading in now.items()
        }
    target = assign({shard: reading.owned for shard, reading in now.items()}, symbols, size)
    settled = transition(transition(now, target, dict(target)), target, dict(target))
    assert {shard: reading.symbols for shard, reading in settled.items()} == target
    assert not any(reading.draining for reading in settled.values())


def test_assign_five_thousand_symbols_in_shards_of_one():
    symbols = [f"S{number:04}" for number in range(5000)]
    single = assign({}, symbols, 1)
    assert len(single) == 5000
    sizes = sorted(sizes_of(assign(single, symbols, 50)).values())
    assert sum(sizes) == 5000
    assert sizes[-1] <= 50 < 2 * sum(sizes[:2])


def test_moves_lists_moved_symbols_without_added_and_removed_ones():
    now = {
        0: ShardAssignment(frozenset("ABX"), frozenset("X")),
        1: ShardAssignment(frozenset("CX"), frozenset()),
    }
    assert moves(now, {0: frozenset("AN"), 1: frozenset("BX")}) == {"B": (0, 1)}
