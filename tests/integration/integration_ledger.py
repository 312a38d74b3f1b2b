"""Compare the records in Kafka with the simulator's ledger: the end of every test of a fault."""

import urllib.request
from collections import defaultdict
from pathlib import Path

from integration_kafka import read_topic
from integration_pipeline import Pipeline, worker_status
from prometheus_client.parser import text_string_to_metric_families

from marketfeed_cli.process import Part
from marketfeed_devtools.waiting import until_async
from marketfeed_wire import decode_book_ticker, decode_trade
from marketfeed_wire.status import WorkerStatus

SYMBOLS = ("BTCUSDT", "ETHUSDT")


def newest_ids(pipeline: Pipeline) -> dict[str, int]:
    """Return symbol -> the newest trade id of the venue."""
    return {symbol: entry["last_trade_id"] for symbol, entry in pipeline.ledger()["symbols"].items()}


async def flowing(pipeline: Pipeline, url: str, trades: int) -> None:
    """Wait until Kafka has acknowledged that many more trades of the worker."""
    topic = pipeline.topics["MARKET_TRADES_TOPIC"]
    before = worker_status(url).acknowledged[topic]
    await until_async(
        lambda: worker_status(url).acknowledged[topic] >= before + trades,
        f"{trades} more trades to be acknowledged: {worker_status(url)}",
    )


async def market_ended(pipeline: Pipeline, url: str) -> WorkerStatus:
    """Halt every symbol, wait until all trades are acknowledged, and return the worker's status."""
    pipeline.fault("halt", symbols=list(SYMBOLS))

    def done() -> bool:
        status, newest = worker_status(url), newest_ids(pipeline)
        return not status.pending and all(
            status.symbols[symbol].last_trade_id == newest[symbol] and not status.symbols[symbol].missing
            for symbol in SYMBOLS
        )

    await until_async(done, f"all of the market to be acknowledged: {worker_status(url)}")
    return worker_status(url)


async def ended_whole(
    pipeline: Pipeline, worker: Part, url: str, broker: str, since: dict[str, int]
) -> WorkerStatus:
    """Halt the market, stop the worker, compare topic and counters with the ledger, and return the worker's status."""
    account = await market_ended(pipeline, url)
    assert await pipeline.stop(worker) == 0
    stored = assert_whole(pipeline, broker, since)
    assert stored == account.acknowledged[pipeline.topics["MARKET_TRADES_TOPIC"]]
    return account


def assert_whole(pipeline: Pipeline, broker: str, since: dict[str, int], *, once: bool = True) -> int:
    """Assert that the topic holds each trade since `since` (symbol -> id), once and in order; return their number.

    Without `once` duplicates are allowed after the first copy: a worker that ends because Kafka rejected a
    part of a read does not count the rest of that read, and the next one publishes it again.
    """
    stored: dict[str, list[int]] = defaultdict(list)
    for _, value in read_topic(broker, pipeline.topics["MARKET_TRADES_TOPIC"]):
        trade = decode_trade(value)
        stored[trade.symbol].append(trade.trade_id)
    newest = newest_ids(pipeline)
    for symbol in SYMBOLS:
        ids = stored[symbol] if once else list(dict.fromkeys(stored[symbol]))
        assert ids[0] <= since[symbol] + 1, f"{symbol} begins too late"
        expected = list(range(ids[0], newest[symbol] + 1))
        assert sorted(set(ids)) == expected, f"{symbol}: missing {sorted(set(expected) - set(ids))[:10]}"
        assert len(ids) == len(expected), f"{symbol}: {len(ids) - len(expected)} duplicates"
        assert ids == expected, f"{symbol}: not in order"
    return sum(map(len, stored.values()))


def assert_quotes_rise(pipeline: Pipeline, broker: str) -> int:
    """Assert that no quote is in the topic twice or after a newer one; return their number."""
    stored: dict[str, list[int]] = defaultdict(list)
    for _, value in read_topic(broker, pipeline.topics["MARKET_BOOK_TOPIC"]):
        quote = decode_book_ticker(value)
        stored[quote.symbol].append(quote.update_id)
    for symbol, ids in stored.items():
        assert ids == sorted(set(ids)), f"{symbol}: quotes duplicated or out of order"
    return sum(map(len, stored.values()))


def resident_bytes(part: Part) -> int:
    """Return the resident memory of a process."""
    lines = Path(f"/proc/{part.pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmRSS:")).split()[1]) * 1024


def metric(url: str, name: str, **labels: str) -> float:
    """Return the sum of a worker's samples of that name whose labels include the given ones."""
    with urllib.request.urlopen(f"{url}/metrics", timeout=10) as answer:  # noqa: S310 - our own worker
        families = text_string_to_metric_families(answer.read().decode())
        return sum(
            sample.value
            for family in families
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )
