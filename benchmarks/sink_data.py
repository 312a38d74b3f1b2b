"""Generated messages of the sink benchmark, similar to recorded ones."""

import random
from collections.abc import Iterator

from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic

from marketfeed_wire import BookTicker, Trade, encode

SYMBOLS = [
    "BTCUSDT", "ETHUSDT", "SOLUSDT", "BNBUSDT", "XRPUSDT", "ADAUSDT", "DOGEUSDT", "AVAXUSDT",
    "LINKUSDT", "DOTUSDT", "LTCUSDT", "UNIUSDT", "ATOMUSDT", "ETCUSDT", "FILUSDT", "APTUSDT",
]  # fmt: skip
PARTITIONS = 4
BEGIN_US = 1_723_161_600_000_000


def trades(count: int) -> Iterator[Trade]:
    """Yield trades of all symbols with contiguous ids per symbol, about 2,000 per second of market time."""
    rng = random.Random(5)  # noqa: S311 - not for security
    last = {symbol: rng.randrange(10**9, 4 * 10**9) for symbol in SYMBOLS}
    price = {symbol: rng.randrange(10**8, 6 * 10**12) for symbol in SYMBOLS}
    for number in range(count):
        symbol = any_symbol(rng)
        last[symbol] += 1
        price[symbol] += rng.randrange(-(10**6), 10**6 + 1) * (rng.random() < 0.4)
        cents = abs(price[symbol]) // 10**6 * 10**6
        time_us = BEGIN_US + number * 500
        yield Trade(
            venue="binance_us", symbol=symbol, trade_id=last[symbol],
            price=f"{cents // 10**8}.{cents % 10**8:08}",
            qty=f"{rng.randrange(3)}.{rng.randrange(10**5):05}000",
            buyer_is_maker=rng.random() < 0.5, trade_time_us=time_us, event_time_us=time_us + 300,
            received_time_us=time_us + 2100,
        )  # fmt: skip


def one(symbol: str, trade_id: int, received_us: int) -> Trade:
    """Return a trade received at `received_us`.

    Args:
        symbol: Symbol.
        trade_id: Trade id.
        received_us: Receive time in microseconds since the epoch.
    """
    return Trade(
        venue="binance_us", symbol=symbol, trade_id=trade_id, price=f"{60000 + trade_id % 97}.25000000",
        qty=f"0.{trade_id % 100_000:05}000", buyer_is_maker=trade_id % 2 == 0, trade_time_us=received_us - 2100,
        event_time_us=received_us - 1800, received_time_us=received_us,
    )  # fmt: skip


def any_symbol(rng: random.Random) -> str:
    """Choose a symbol: partitions are equally likely, and the first of four symbols has six of ten trades."""
    rank = min(int(rng.expovariate(0.9)), len(SYMBOLS) // PARTITIONS - 1)
    return SYMBOLS[rank * PARTITIONS + rng.randrange(PARTITIONS)]


def partition_of(symbol: str) -> int:
    """Return a partition that balances messages independently of the names' hashes."""
    return SYMBOLS.index(symbol) % PARTITIONS


def create(broker: str, *topics: str) -> None:
    admin = AdminClient({"bootstrap.servers": broker, "log_level": 3})
    for future in admin.create_topics([NewTopic(topic, PARTITIONS, 1) for topic in topics]).values():
        future.result()


def delete(broker: str, *topics: str) -> None:
    admin = AdminClient({"bootstrap.servers": broker, "log_level": 3})
    for future in admin.delete_topics(list(topics)).values():
        future.result()


def publish(broker: str, topic: str, records: Iterator[tuple[str, bytes]]) -> int:
    """Produce (symbol, value) pairs; return their number.

    Args:
        broker: Bootstrap address.
        topic: Topic.
        records: Pairs of symbol and value.
    """
    producer = Producer(
        {
            "bootstrap.servers": broker, "log_level": 3, "linger.ms": 20, "compression.type": "lz4", "acks": "all",
            "queue.buffering.max.messages": 200_000, "enable.idempotence": True,
        }
    )  # fmt: skip
    count = 0
    for symbol, value in records:
        while True:
            try:
                producer.produce(topic, value, symbol.encode(), partition_of(symbol))
                break
            except BufferError:
                producer.poll(0.1)
        count += 1
    if producer.flush(60):
        raise SystemExit(f"Kafka did not acknowledge all messages of {topic}")
    return count


def plain(count: int) -> Iterator[tuple[str, bytes]]:
    """Yield `count` new trades."""
    return ((trade.symbol, encode(trade)) for trade in trades(count))


def cheap_trades() -> Iterator[tuple[str, bytes]]:
    """Yield an endless sequence of new trades that is cheap to generate, a thousand per second of market time."""
    number = 0
    while True:
        trade_id, time_us = 1000 + number // len(SYMBOLS), BEGIN_US + number * 1000
        symbol = SYMBOLS[number % len(SYMBOLS)]
        yield symbol, encode(one(symbol, trade_id, time_us))
        number += 1


def quotes(count: int) -> Iterator[tuple[str, bytes]]:
    """Yield `count` new quotes with increasing, non-contiguous update ids."""
    rng = random.Random(6)  # noqa: S311 - not for security
    last = dict.fromkeys(SYMBOLS, 10**10)
    for number in range(count):
        symbol = any_symbol(rng)
        last[symbol] += rng.randrange(1, 40)
        cents = 10**6 + rng.randrange(10**4)
        quote = BookTicker(
            venue="binance_us", symbol=symbol, update_id=last[symbol], event_time_us=None,
            bid_price=f"{cents // 100}.{cents % 100:02}000000", bid_qty=f"0.{rng.randrange(10**5):05}000",
            ask_price=f"{cents // 100 + 1}.{cents % 100:02}000000", ask_qty=f"0.{rng.randrange(10**5):05}000",
            received_time_us=BEGIN_US + number * 300,
        )  # fmt: skip
        yield symbol, encode(quote)


def doubled(count: int) -> Iterator[tuple[str, bytes]]:
    """Yield `count` messages, half of them duplicates: each block of 5,000 is repeated, as after a restart."""
    block: list[tuple[str, bytes]] = []
    for trade in trades(count // 2):
        block.append((trade.symbol, encode(trade)))
        if len(block) == 5_000:
            yield from block
            yield from block
            block = []
    yield from block
    yield from block
