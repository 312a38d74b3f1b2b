"""Hypothesis strategies over all valid messages, including the bounds of each field."""

import hypothesis.strategies as st

from marketfeed_wire import MAX_ID, MAX_TIME_US, BookTicker, Trade

ids = st.integers(0, MAX_ID) | st.sampled_from([0, 1, 2**53 + 1, MAX_ID])
times = st.integers(0, MAX_TIME_US) | st.sampled_from([0, MAX_TIME_US])
names = (
    st.text(
        st.characters(codec="utf-8").filter(lambda c: c.isprintable() and c != " "), min_size=1, max_size=64
    )
    | st.text("\"\\/'{}[]:,$%ß币🪙", min_size=1, max_size=64)
    | st.sampled_from(["BTCUSDT", "1000SATSUSDT", "币安人生USDT", "BTC-USD", "BTC/USD", "ß" * 64])
)
decimals = st.from_regex(r"([0-9]{1,31}\.?[0-9]{0,31}|\.[0-9]{1,31})", fullmatch=True).filter(str.isascii)
trades = st.builds(
    Trade,
    venue=names,
    symbol=names,
    trade_id=ids,
    price=decimals,
    qty=decimals,
    trade_time_us=times,
    event_time_us=times | st.none(),
    received_time_us=times,
    origin=st.sampled_from(["stream", "backfill"]),
    schema_version=st.just(1),
    id_series=st.integers(0, 2**31 - 1),
)
book_tickers = st.builds(
    BookTicker,
    venue=names,
    symbol=names,
    update_id=ids,
    bid_price=decimals,
    bid_qty=decimals,
    ask_price=decimals,
    ask_qty=decimals,
    event_time_us=times | st.none(),
    received_time_us=times,
    schema_version=st.just(1),
    id_series=st.integers(0, 2**31 - 1),
)
