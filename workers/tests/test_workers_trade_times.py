"""Times of trades before gaps: bounded by the number of gaps."""

from hypothesis import given
from hypothesis import strategies as st

from marketfeed_service.id_ranges import IdRange
from marketfeed_wire import Trade
from marketfeed_workers.stream.symbol_flow import SymbolFlow
from marketfeed_workers.stream.trade_times import SPARE, TradeTimes
from marketfeed_workers.venues.venue import Fetched

IDS = st.integers(0, 60)


@given(st.dictionaries(IDS, st.integers(1, 1000)), st.sets(IDS))
def test_trade_times_prune_keeps_the_results(noted: dict[int, int], firsts: set[int]) -> None:
    times = TradeTimes()
    for trade_id, time_us in noted.items():
        times.add(trade_id, time_us)
    asked = [*firsts, 1_000]
    before = {each: max((known for known in noted if known < each), default=None) for each in asked}
    expected = {each: None if known is None else noted[known] for each, known in before.items()}
    assert {each: times.before(each) for each in asked} == expected
    times.prune(firsts)
    assert {each: times.before(each) for each in asked} == expected
    assert len(times) <= len(firsts) + 1


def a_trade(trade_id: int) -> Trade:
    return Trade("binance_us", "BTCUSDT", trade_id, "1", "1", True, 1_000 * trade_id, None, 1, "backfill")


def test_trade_times_are_bounded_while_a_gap_stays_open() -> None:
    """One gap that cannot be filled kept a time of every gap and every response after it."""
    flow = SymbolFlow("BTCUSDT", b"BTCUSDT")
    flow.resume(9, [])
    flow.accept(a_trade(20), 1)  # 10 to 19 stay missing
    flow.sequence.flush()
    for first in range(30, 30_000, 10):
        flow.accept(a_trade(first), 1)
        flow.last_trade_time_us = 1_000 * first
        flow.sequence.flush()
        fetched = [a_trade(each) for each in range(first - 9, first)]
        flow.accept_fetched(Fetched(fetched, [], "trades"), 1)
        flow.update_gaps()
        flow.remove_gaps(is_done=lambda entry: not entry.missing)
    assert [entry.ids for entry in flow.gaps] == [IdRange(10, 19)]
    assert len(flow.trade_times) <= SPARE + 2
    assert flow.time_before(30_001) == 1_000 * 29_989, "the newest time was pruned"
