"""Generated market: properties for any seed, rates and symbols."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketfeed_simulator.frames import Frame
from marketfeed_simulator.instruments import UNIT, decimal, instrument, invented, units
from marketfeed_simulator.market import GeneratedMarket, Rates

START_US = 1_700_000_000_000_000

rates = st.builds(Rates, st.floats(0, 500), st.floats(0, 500))


def market(symbols: list[tuple[str, Rates]], seed: int = 1, **options: object) -> GeneratedMarket:
    markets = [(instrument(symbol), rate) for symbol, rate in symbols]
    return GeneratedMarket(markets, seed=seed, start_us=START_US, **options)  # type: ignore[arg-type]


def frames_of(source: GeneratedMarket, seconds: float, most: int = 64) -> list[Frame]:
    frames: list[Frame] = []
    while pulled := source.pull(START_US + int(seconds * 1e6), most):
        frames += pulled
    return frames


@given(st.integers(), st.lists(rates, min_size=1, max_size=5), st.integers(1, 200))
def test_market_seed_is_reproducible_for_any_pulls(seed: int, busy: list[Rates], most: int) -> None:
    symbols = list(zip(invented(len(busy)), busy, strict=True))
    one = frames_of(market(symbols, seed), 0.3, most)
    other = frames_of(market(symbols, seed), 0.3, 1000)
    assert [frame.text(1) for frame in one] == [frame.text(1) for frame in other]


@given(st.integers(), st.lists(rates, min_size=1, max_size=5))
def test_market_ids_contiguous_prices_positive_times_ascending(seed: int, busy: list[Rates]) -> None:
    symbols = list(zip(invented(len(busy)), busy, strict=True))
    frames = frames_of(market(symbols, seed), 0.5)
    assert [frame.time_us for frame in frames] == sorted(frame.time_us for frame in frames)
    for symbol, _ in symbols:
        trades = [frame.trade for frame in frames if frame.symbol == symbol and frame.trade]
        ids = [trade.id for trade in trades]
        assert ids == list(range(ids[0], ids[0] + len(ids))) if ids else True
        assert all(units(trade.price) > 0 and units(trade.qty) > 0 for trade in trades)
        quotes = [
            json.loads(frame.data) for frame in frames if frame.symbol == symbol and frame.kind == "quote"
        ]
        assert all(0 < units(quote["b"]) < units(quote["a"]) for quote in quotes)
        updates = [quote["u"] for quote in quotes]
        assert updates == sorted(set(updates))


def test_market_payload_has_the_venue_s_fields() -> None:
    trade, quote = market([("BTCUSDT", Rates(100, 0))]), market([("BTCUSDT", Rates(0, 100))])
    payload = json.loads(frames_of(trade, 1)[0].data)
    assert list(payload) == ["e", "E", "s", "t", "p", "q", "b", "a", "T", "m", "M"]
    assert 0 <= payload["E"] - payload["T"] <= 1
    assert START_US // 1000 <= payload["E"] < START_US // 1000 + 1000
    assert len(payload["p"].partition(".")[2]) == 8
    assert list(json.loads(frames_of(quote, 1)[0].data)) == ["u", "s", "b", "B", "a", "A"]


def test_market_without_order_ids() -> None:
    frames = frames_of(market([("BTCUSDT", Rates(100, 0))], order_ids=False), 1)
    assert "b" not in json.loads(frames[0].data)


def test_market_rates_on_average() -> None:
    frames = frames_of(market([("BTCUSDT", Rates(50, 200)), ("ETHUSDT", Rates(0, 10))]), 60)
    counts = {kind: sum(frame.kind == kind for frame in frames) for kind in ("trade", "quote")}
    assert 2700 < counts["trade"] < 3300
    assert 12_000 < counts["quote"] < 13_200


def test_market_burst_multiplies_the_rates() -> None:
    source = market([("BTCUSDT", Rates(20, 80))])
    calm = len(frames_of(source, 10))
    source.set_burst(20)
    busy = len(frames_of(source, 20))
    source.set_burst(1)
    after = len(frames_of(source, 30))
    assert busy > 15 * calm
    assert after < 2 * calm


def test_market_skips_ids_once() -> None:
    source = market([("BTCUSDT", Rates(100, 0))])
    before = frames_of(source, 1)[-1].id
    source.skip_ids("BTCUSDT", 7)
    after = [frame.id for frame in frames_of(source, 2)]
    assert after[0] == before + 8
    assert after == list(range(after[0], after[0] + len(after)))


def test_market_halt_and_resume() -> None:
    source = market([("BTCUSDT", Rates(100, 100)), ("ETHUSDT", Rates(100, 100))])
    before = [frame for frame in frames_of(source, 1) if frame.symbol == "BTCUSDT" and frame.trade]
    source.set_status("BTCUSDT", "HALT")
    halted = frames_of(source, 2)
    assert {frame.symbol for frame in halted} == {"ETHUSDT"}
    source.set_status("BTCUSDT", "TRADING")
    resumed = [frame for frame in frames_of(source, 3) if frame.symbol == "BTCUSDT" and frame.trade]
    assert resumed[0].id == before[-1].id + 1
    assert resumed[0].time_us > START_US + 2_000_000


def test_market_with_every_symbol_halted() -> None:
    source = market([("BTCUSDT", Rates(100, 100))])
    source.set_status("BTCUSDT", "HALT")
    assert frames_of(source, 5) == []
    assert source.next_us() is None
    assert not source.finished


def test_market_duration() -> None:
    source = market([("BTCUSDT", Rates(100, 100))], duration_us=2_000_000)
    frames = frames_of(source, 60)
    assert source.finished
    assert frames[-1].time_us < START_US + 2_000_000
    assert source.pull(None, 10) == []


def test_market_adds_a_listed_symbol() -> None:
    source = market([("BTCUSDT", Rates(10, 10))])
    source.add(instrument("NEWUSDT"), Rates(100, 100))
    assert "newusdt@trade" in source.streams
    assert "NEWUSDT" in {frame.symbol for frame in frames_of(source, 2)}


def test_market_aggregates_have_first_and_last_id() -> None:
    frames = frames_of(market([("BTCUSDT", Rates(200, 0))], aggregates=True), 2)
    fills: list[int] = []
    for frame in frames:
        if frame.trade:
            fills.append(frame.id)
            continue
        payload = json.loads(frame.data)
        assert (payload["f"], payload["l"]) == (fills[0], fills[-1])
        fills = []
    assert len(frames) > 300


def test_market_microseconds_are_exact() -> None:
    frames = frames_of(market([("BTCUSDT", Rates(200, 0))]), 1)
    payloads = [json.loads(frame.text(2)) for frame in frames]
    assert all(payload["E"] == frame.time_us for payload, frame in zip(payloads, frames, strict=True))
    assert any(payload["T"] % 1000 for payload in payloads)


@given(st.integers(0, 10**20))
def test_instrument_units_and_decimals_are_inverse(number: int) -> None:
    assert units(decimal(number)) == number


@pytest.mark.parametrize("text", ["", ".", "1.123456789", "-1", "1e5", "x", "1.2.3"])
def test_instrument_units_reject_other_text(text: str) -> None:
    with pytest.raises(ValueError, match="is not a decimal number"):
        units(text)


def test_instrument_prices() -> None:
    assert instrument("BTCUSDT").price > 10_000 * UNIT
    assert instrument("SIM0001USDT").price == 100 * UNIT
    assert (instrument("ETHBTC").base, instrument("ETHBTC").quote) == ("ETH", "BTC")
    assert len(set(invented(500))) == 500
