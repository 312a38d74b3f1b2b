"""Decoding of frames: recorded ones, invalid ones, noise."""

import copy
import gzip
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import example, given

from marketfeed_wire import MAX_ID, MAX_TIME_US, BookTicker, Trade, decode_trade, encode
from marketfeed_workers.venues import binance, binance_us
from marketfeed_workers.venues.binance_spot.venue import BinanceSpot
from marketfeed_workers.venues.clock import is_possible
from marketfeed_workers.venues.errors import BadFrame
from marketfeed_workers.venues.venue import DecodedFrames, Event, Reply, ShutdownNotice, one_by_one

RECEIVED_US = 1_723_161_600_001_234

read_us = binance_us.VENUE.read
read_global = binance.VENUE.read


def combined(stream: str, data: object) -> bytes:
    return json.dumps({"stream": stream, "data": data}, separators=(",", ":")).encode()


TRADE: dict[str, Any] = {
    "e": "trade",
    "E": 1_723_161_600_001,
    "s": "BTCUSDT",
    "t": 3_700_000_001,
    "p": "61685.99000000",
    "q": "0.00120000",
    "T": 1_723_161_600_000,
    "m": True,
    "M": True,
}
BOOK_TICKER: dict[str, Any] = {
    "u": 50_093_421_613,
    "s": "BTCUSDT",
    "b": "61685.99000000",
    "B": "1.25869000",
    "a": "61686.00000000",
    "A": "2.44816000",
}


def test_mapper_trade_keeps_the_venues_text_and_times() -> None:
    assert read_us(combined("btcusdt@trade", TRADE), RECEIVED_US) == Trade(
        venue="binance_us",
        symbol="BTCUSDT",
        trade_id=3_700_000_001,
        price="61685.99000000",
        qty="0.00120000",
        buyer_is_maker=True,
        trade_time_us=1_723_161_600_000_000,
        event_time_us=1_723_161_600_001_000,
        received_time_us=RECEIVED_US,
        origin="stream",
    )


def test_mapper_quote_has_no_event_time() -> None:
    assert read_us(combined("btcusdt@bookTicker", BOOK_TICKER), RECEIVED_US) == BookTicker(
        venue="binance_us",
        symbol="BTCUSDT",
        update_id=50_093_421_613,
        bid_price="61685.99000000",
        bid_qty="1.25869000",
        ask_price="61686.00000000",
        ask_qty="2.44816000",
        event_time_us=None,
        received_time_us=RECEIVED_US,
    )


def test_mapper_of_the_global_venue_uses_microseconds() -> None:
    trade = {**TRADE, "T": 1_723_161_600_000_123, "E": 1_723_161_600_000_456}
    event = read_global(combined("btcusdt@trade", trade), RECEIVED_US)
    assert isinstance(event, Trade)
    assert (event.venue, event.trade_time_us, event.event_time_us) == (
        "binance",
        1_723_161_600_000_123,
        1_723_161_600_000_456,
    )


@pytest.mark.parametrize(
    "changed",
    [
        pytest.param({"b": 88, "a": 50}, id="with the order ids that Binance US still sends"),
        pytest.param({"X": {"new": [1, 2]}}, id="with unknown fields"),
        pytest.param({"s": "币安人生USDT"}, id="of a symbol outside ASCII"),
        pytest.param({"t": 0}, id="with the first id of all"),
        pytest.param({"t": MAX_ID}, id="with the largest id"),
        pytest.param({"T": MAX_TIME_US // 1000}, id="with the largest time"),
    ],
)
def test_mapper_reads_trades(changed: dict[str, Any]) -> None:
    payload = {**TRADE, **changed}
    event = read_us(combined(f"{payload['s'].lower()}@trade", payload), RECEIVED_US)
    assert isinstance(event, Trade)
    assert (event.symbol, event.trade_id) == (payload["s"], payload["t"])
    assert decode_trade(encode(event)) == event


def test_mapper_reads_every_recorded_frame(recording: Callable[[str], Path]) -> None:
    kinds: Counter[str] = Counter()
    with gzip.open(recording("binance-spot-btcusdt-ethusdt-20240809.frames.gz")) as lines:
        for line in lines:
            received_ns, _, frame = line.rstrip(b"\n").partition(b" ")
            received_us = int(received_ns) // 1000
            whole = json.loads(frame)
            kind = whole["stream"].partition("@")[2]
            kinds[kind] += 1
            assert read_us(frame, received_us) == _expected(kind, whole["data"], received_us), frame
    assert kinds == {"trade": 18_556, "bookTicker": 79_815}


def _expected(kind: str, data: dict[str, Any], received_us: int) -> Event:
    if kind == "trade":
        return Trade(
            "binance_us",
            data["s"],
            data["t"],
            data["p"],
            data["q"],
            data["m"],
            data["T"] * 1000,
            data["E"] * 1000,
            received_us,
        )
    return BookTicker(
        "binance_us", data["s"], data["u"], data["b"], data["B"], data["a"], data["A"], None, received_us
    )


def test_mapper_skips_frames_of_other_streams(recording: Callable[[str], Path]) -> None:
    outcome: Counter[tuple[str, str]] = Counter()
    with recording("binance-us-mixed-2021.frames.txt").open("rb") as lines:
        next(lines)  # the URL
        for line in lines:
            frame = line.partition(b": ")[2].rstrip(b"\n")
            whole = json.loads(frame)
            kind = whole["stream"].split("@")[1]
            event = read_us(frame, RECEIVED_US)
            outcome[kind, type(event).__name__] += 1
            if kind == "bookTicker":
                assert event == _expected(kind, whole["data"], RECEIVED_US)
    assert outcome["bookTicker", "BookTicker"] == 128
    assert outcome.total() == 480
    others = {kind: name for kind, name in outcome if kind != "bookTicker"}
    assert others == {"depth": "NoneType", "kline_1m": "NoneType", "aggTrade": "NoneType"}


BAD_TRADES = [
    pytest.param({"p": 61685.99}, "data.p", id="price as a number"),
    pytest.param({"p": None}, "data.p", id="price null"),
    pytest.param({"p": ""}, "data.p", id="price empty"),
    pytest.param({"p": "-1.0"}, "data.p", id="price negative"),
    pytest.param({"p": "1e5"}, "data.p", id="price with an exponent"),
    pytest.param({"p": "NaN"}, "data.p", id="price not a number"),
    pytest.param({"p": "1.2.3"}, "data.p", id="price with two points"),
    pytest.param({"p": "١٢"}, "data.p", id="price in digits of another script"),
    pytest.param({"p": "1" * 65}, "data.p", id="price longer than can be stored"),
    pytest.param({"q": "Infinity"}, "data.q", id="quantity infinite"),
    pytest.param({"q": "0x10"}, "data.q", id="quantity hexadecimal"),
    pytest.param({"q": ["1"]}, "data.q", id="quantity a list"),
    pytest.param({"t": -1}, "data.t", id="id negative"),
    pytest.param({"t": MAX_ID + 1}, "data.t", id="id larger than can be stored"),
    pytest.param({"t": 2**70}, "data.t", id="id larger than any machine word"),
    pytest.param({"t": 1.5}, "data.t", id="id with a fraction"),
    pytest.param({"t": "3700000001"}, "data.t", id="id as text"),
    pytest.param({"t": True}, "data.t", id="id a truth value"),
    pytest.param({"s": ""}, "data.s", id="symbol empty"),
    pytest.param({"s": 7}, "data.s", id="symbol a number"),
    pytest.param({"s": "X" * 65}, "data.s", id="symbol longer than can be stored"),
    pytest.param({"m": "true"}, "data.m", id="maker flag as text"),
    pytest.param({"m": 1}, "data.m", id="maker flag a number"),
    pytest.param({"T": "now"}, "data.T", id="trade time as text"),
    pytest.param({"T": None}, "data.T", id="trade time null"),
    pytest.param({"T": 2**63}, "data.T", id="trade time larger than any machine word"),
    pytest.param({"E": "now"}, "data.E", id="event time as text"),
]


@pytest.mark.parametrize(("changed", "field"), BAD_TRADES)
def test_mapper_rejects_an_invalid_trade_by_field(changed: dict[str, Any], field: str) -> None:
    with pytest.raises(BadFrame, match=rf"\$\.{field}`") as caught:
        read_us(combined("btcusdt@trade", {**TRADE, **changed}), RECEIVED_US)
    assert caught.value.reason == "bad_frame"


@pytest.mark.parametrize("payload", [{**TRADE, "E": None}, {k: v for k, v in TRADE.items() if k != "E"}])
def test_mapper_reads_a_trade_without_an_event_time(payload: dict[str, Any]) -> None:
    event = read_us(combined("btcusdt@trade", payload), RECEIVED_US)
    assert isinstance(event, Trade)
    assert event.event_time_us is None
    assert decode_trade(encode(event)) == event


@pytest.mark.parametrize("time", [-5, 0, MAX_TIME_US, 2**63 - 1])
def test_mapper_reads_a_trade_of_an_impossible_time(time: int) -> None:
    event = read_us(combined("btcusdt@trade", {**TRADE, "T": time, "E": time}), RECEIVED_US)
    assert isinstance(event, Trade)
    assert (event.trade_id, event.trade_time_us, event.event_time_us) == (
        TRADE["t"],
        time * 1000,
        time * 1000,
    )


@pytest.mark.parametrize("field", ["s", "t", "p", "q", "T", "m"])
def test_mapper_rejects_a_trade_without_a_field(field: str) -> None:
    payload = {name: value for name, value in TRADE.items() if name != field}
    with pytest.raises(BadFrame, match=f"missing required field `{field}`"):
        read_us(combined("btcusdt@trade", payload), RECEIVED_US)


@pytest.mark.parametrize(
    ("changed", "field"),
    [
        pytest.param({"u": "50093421613"}, "data.u", id="update id as text"),
        pytest.param({"u": -1}, "data.u", id="update id negative"),
        pytest.param({"b": 61685.99}, "data.b", id="bid price as a number"),
        pytest.param({"B": None}, "data.B", id="bid quantity null"),
        pytest.param({"a": ""}, "data.a", id="ask price empty"),
        pytest.param({"A": "1" * 65}, "data.A", id="ask quantity longer than can be stored"),
        pytest.param({"s": None}, "data.s", id="symbol null"),
    ],
)
def test_mapper_rejects_an_invalid_quote_by_field(changed: dict[str, Any], field: str) -> None:
    with pytest.raises(BadFrame, match=rf"\$\.{field}`"):
        read_us(combined("btcusdt@bookTicker", {**BOOK_TICKER, **changed}), RECEIVED_US)


@pytest.mark.parametrize("field", list(BOOK_TICKER))
def test_mapper_rejects_a_quote_without_a_field(field: str) -> None:
    payload = {name: value for name, value in BOOK_TICKER.items() if name != field}
    with pytest.raises(BadFrame, match=f"missing required field `{field}`"):
        read_us(combined("btcusdt@bookTicker", payload), RECEIVED_US)


@pytest.mark.parametrize(
    "frame",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"<html><body>502 Bad Gateway</body></html>", id="HTML"),
        pytest.param(b"[]", id="a list"),
        pytest.param(b'"trade"', id="a text"),
        pytest.param(combined("btcusdt@trade", TRADE)[:-9], id="a trade cut off"),
        pytest.param(combined("btcusdt@trade", TRADE) + b"x", id="a trade with something after it"),
        pytest.param(combined("btcusdt@trade", TRADE).replace(b"BTCUSDT", b"\xff\xfe"), id="not UTF-8"),
        pytest.param(combined("btcusdt@trade", [TRADE]), id="a list of trades"),
        pytest.param(combined("btcusdt@trade", None), id="a trade without its payload"),
        pytest.param(b'{"stream":"btcusdt@trade"}', id="a stream's name alone"),
        pytest.param(b'{"data":' + b"[" * 100_000, id="nested deeper than can be read"),
        pytest.param(b'{"stream":"btcusdt@trade","data":' + b'{"x":' * 100_000, id="the same in a trade"),
        pytest.param(b'{"id":"seven","result":null}', id="a reply without a request"),
        pytest.param(b'{"error":{"code":"two","msg":"?"},"id":1}', id="an error without a code"),
    ],
)
def test_mapper_rejects_other_frames(frame: bytes) -> None:
    with pytest.raises(BadFrame) as caught:
        read_us(frame, RECEIVED_US)
    assert len(str(caught.value)) < 1000, "the error has more than the start of the frame"


@pytest.mark.parametrize(
    "frame",
    [
        pytest.param(json.dumps({"data": TRADE, "stream": "btcusdt@trade"}).encode(), id="payload first"),
        pytest.param(
            json.dumps({"stream": "btcusdt@trade", "data": TRADE}, indent=2).encode(), id="indented"
        ),
        pytest.param(combined("x" * 200 + "@trade", TRADE), id="under a very long name"),
    ],
)
def test_mapper_reads_a_trade_with_other_formatting(frame: bytes) -> None:
    assert read_us(frame, RECEIVED_US) == read_us(combined("btcusdt@trade", TRADE), RECEIVED_US)


def test_mapper_reads_a_quote_with_other_formatting() -> None:
    payload_first = json.dumps({"data": BOOK_TICKER, "stream": "btcusdt@bookTicker"}).encode()
    usual = combined("btcusdt@bookTicker", BOOK_TICKER)
    assert read_us(payload_first, RECEIVED_US) == read_us(usual, RECEIVED_US)


def test_mapper_error_has_the_start_of_the_frame() -> None:
    with pytest.raises(BadFrame, match="btcusdt@trade"):
        read_us(combined("btcusdt@trade", {**TRADE, "p": None}), RECEIVED_US)


@pytest.mark.parametrize(
    ("frame", "reply"),
    [
        pytest.param(b'{"result":null,"id":3}', Reply(3, "", None), id="done"),
        pytest.param(
            b'{"result":["btcusdt@trade"],"id":4}', Reply(4, "", ["btcusdt@trade"]), id="subscriptions"
        ),
        pytest.param(b'{"result":true,"id":5}', Reply(5, "", True), id="a property"),
        pytest.param(b'{"id":6,"result":null}', Reply(6, "", None), id="done, in another order"),
        pytest.param(
            b'{"code":2,"msg":"Invalid request: unknown variant"}',
            Reply(None, "2: Invalid request: unknown variant", None),
            id="an error without our id",
        ),
        pytest.param(
            b'{"code":0,"msg":"Unknown property","id":7}',
            Reply(7, "0: Unknown property", None),
            id="an error",
        ),
        pytest.param(
            b'{"error":{"code":3,"msg":"Invalid JSON"},"id":8}',
            Reply(8, "3: Invalid JSON", None),
            id="an error inside an object",
        ),
        pytest.param(b'{"error":{"code":4},"id":9}', Reply(9, "4: ", None), id="an error without words"),
    ],
)
def test_mapper_reads_replies_to_commands(frame: bytes, reply: Reply) -> None:
    assert read_us(frame, RECEIVED_US) == reply


@pytest.mark.parametrize(
    "frame",
    [
        pytest.param(b'{"e":"serverShutdown","E":1770123456789}', id="raw"),
        pytest.param(
            b'{"stream":"!serverShutdown","data":{"e":"serverShutdown","E":1770123456789}}', id="combined"
        ),
    ],
)
def test_mapper_reads_a_shutdown_notice(frame: bytes) -> None:
    assert read_us(frame, RECEIVED_US) == ShutdownNotice()
    assert read_global(frame, RECEIVED_US) == ShutdownNotice()


@pytest.mark.parametrize(
    "frame",
    [
        pytest.param(combined("btcusdt@aggTrade", {**TRADE, "e": "aggTrade"}), id="another stream of trades"),
        pytest.param(combined("btcusdt@blockTrade", TRADE), id="trades of another id space"),
        pytest.param(combined("btcusdt@depth5", {"lastUpdateId": 1, "bids": []}), id="without an event name"),
        pytest.param(b"{}", id="an empty object"),
    ],
)
def test_mapper_ignores_irrelevant_frames(frame: bytes) -> None:
    assert read_us(frame, RECEIVED_US) is None


def refuses_or_gives_what_can_be_published(frame: bytes) -> None:
    for read in (read_us, read_global):
        try:
            event = read(frame, RECEIVED_US)
        except BadFrame:
            continue
        if isinstance(event, Trade) and event.symbol == "BTCUSDT":
            # The pipeline rejects impossible times before it publishes.
            if is_possible(event.trade_time_us, event.event_time_us, MAX_TIME_US):
                assert decode_trade(encode(event)) == event
        elif isinstance(event, BookTicker):
            assert encode(event)


@given(st.binary())
@example(b'{"stream":"@trade"')
@example(b'{"result":')
def test_mapper_rejects_noise(frame: bytes) -> None:
    refuses_or_gives_what_can_be_published(frame)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text()
    | st.sampled_from(["trade", "serverShutdown", "1.0"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)
TOP_LEVEL = st.sampled_from(["stream", "data", "e", "id", "result", "error", "code", "msg"])


@given(
    st.dictionaries(
        TOP_LEVEL, JSON | st.sampled_from(["btcusdt@trade", "btcusdt@bookTicker", "!serverShutdown"])
    )
)
def test_mapper_accepts_or_rejects_any_object(whole: dict[str, Any]) -> None:
    refuses_or_gives_what_can_be_published(json.dumps(whole).encode())


@given(st.sampled_from([TRADE, BOOK_TICKER]), st.data())
def test_mapper_accepts_or_rejects_a_payload_with_one_invalid_field(
    payload: dict[str, Any], data: st.DataObject
) -> None:
    broken = copy.deepcopy(payload)
    broken[data.draw(st.sampled_from(list(payload)))] = data.draw(JSON)
    kind = "trade" if payload is TRADE else "bookTicker"
    refuses_or_gives_what_can_be_published(combined(f"btcusdt@{kind}", broken))


@given(st.sampled_from([TRADE, BOOK_TICKER]), st.data())
def test_mapper_accepts_or_rejects_a_frame_with_overwritten_bytes(
    payload: dict[str, Any], data: st.DataObject
) -> None:
    kind = "trade" if payload is TRADE else "bookTicker"
    frame = bytearray(combined(f"btcusdt@{kind}", payload))
    for _ in range(data.draw(st.integers(1, 3))):
        frame[data.draw(st.integers(0, len(frame) - 1))] = data.draw(st.integers(0, 255))
    refuses_or_gives_what_can_be_published(bytes(frame))


def plain(batch: DecodedFrames) -> tuple[object, ...]:
    """Return a comparable batch: errors as text."""
    return batch.trades, batch.quotes, batch.notices, [str(error) for error in batch.refused]


def read_together(venue: BinanceSpot, frames: list[bytes]) -> DecodedFrames:
    """Decode `frames` as one read; the result must equal that of single frames."""
    batch = venue.read_all(frames, RECEIVED_US)
    assert plain(batch) == plain(one_by_one(venue.read, frames, RECEIVED_US))
    return batch


@pytest.mark.parametrize("venue", [binance_us.VENUE, binance.VENUE], ids=lambda venue: venue.facts.name)
def test_mapper_batch_of_recorded_frames_equals_single_frames(
    venue: BinanceSpot, recording: Callable[[str], Path]
) -> None:
    with gzip.open(recording("binance-spot-btcusdt-ethusdt-20240809.frames.gz")) as lines:
        frames = [line.rstrip(b"\n").partition(b" ")[2] for line in lines]
    events = 0
    for start in range(0, len(frames), 500):
        batch = read_together(venue, frames[start : start + 500])
        events += len(batch.trades) + len(batch.quotes)
    assert events == len(frames)


GOOD_TRADE, GOOD_QUOTE = combined("btcusdt@trade", TRADE), combined("btcusdt@bookTicker", BOOK_TICKER)


@pytest.mark.parametrize(
    ("frame", "trades", "quotes", "notices", "refused"),
    [
        pytest.param(b'{"result":null,"id":3}', 0, 0, 1, 0, id="a reply"),
        pytest.param(b'{"error":{"code":3,"msg":"no"},"id":8}', 0, 0, 1, 0, id="an error that ends like none"),
        pytest.param(
            combined("btcusdt@trade", {**TRADE, "M": "x"}), 1, 0, 0, 0, id="a trade that ends like a quote"
        ),
        pytest.param(
            combined("btcusdt@bookTicker", {**BOOK_TICKER, "z": True}), 0, 1, 0, 0,
            id="a quote that ends like a trade",
        ),
        pytest.param(
            combined("btcusdt@blockTrade", TRADE), 0, 0, 0, 0, id="a trade of a stream with ids of its own"
        ),
        pytest.param(combined("x@miniTicker", BOOK_TICKER), 0, 0, 0, 0, id="a quote of another stream"),
        pytest.param(combined("btcusdt@trade", {**TRADE, "p": "1e5"}), 0, 0, 0, 1, id="a bad price"),
        pytest.param(combined("btcusdt@trade", {**TRADE, "t": None}), 0, 0, 0, 1, id="a trade without an id"),
        pytest.param(GOOD_TRADE + b"," + GOOD_TRADE, 0, 0, 0, 1, id="two trades in one frame"),
        pytest.param(GOOD_QUOTE[:-1], 0, 0, 0, 1, id="a quote cut off"),
        pytest.param(b"", 0, 0, 0, 1, id="nothing"),
        pytest.param(b"{}", 0, 0, 0, 0, id="an empty object"),
        pytest.param(b'{"data":' + b"[" * 100_000 + b'"}}', 0, 0, 0, 1, id="nested deeper than can be read"),
        pytest.param(GOOD_QUOTE.replace(b"BTC", b"\xff\xfe"), 0, 0, 0, 1, id="not UTF-8"),
    ],
)  # fmt: skip
def test_mapper_batch_skips_only_the_invalid_frame(
    frame: bytes, trades: int, quotes: int, notices: int, refused: int
) -> None:
    for others in ([GOOD_TRADE, GOOD_QUOTE], [GOOD_TRADE], [GOOD_QUOTE]):
        batch = read_together(binance_us.VENUE, [*others, frame, *others])
        assert len(batch.trades) == trades + 2 * (GOOD_TRADE in others)
        assert len(batch.quotes) == quotes + 2 * (GOOD_QUOTE in others)
        assert (len(batch.notices), len(batch.refused)) == (notices, refused)


@given(st.lists(st.sampled_from([GOOD_TRADE, GOOD_QUOTE, b'{"result":null,"id":3}']), max_size=6), st.data())
def test_mapper_batch_of_any_frames_equals_single_frames(frames: list[bytes], data: st.DataObject) -> None:
    for number in range(len(frames)):
        frame = bytearray(frames[number])
        for _ in range(data.draw(st.sampled_from([0, 0, 0, 1, 2]))):
            frame[data.draw(st.integers(0, len(frame) - 1))] = data.draw(st.sampled_from(b'0a"{},:@[]}x\xff'))
        frames[number] = bytes(frame)
    read_together(binance_us.VENUE, frames)
