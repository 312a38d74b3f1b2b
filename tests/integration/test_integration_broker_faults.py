"""The pipeline on a broker that stops and returns: nothing acknowledged is lost, and sockets are paused."""

import signal
from pathlib import Path

import pytest
from integration_kafka import ApacheKafka, read_topic, require_kafka
from integration_pipeline import TRADES, Pipeline, worker_status

from marketfeed_cli.process import Parts
from marketfeed_devtools.waiting import until_async
from marketfeed_wire import decode_trade

pytestmark = [pytest.mark.integration, pytest.mark.kafka]

MARKET = ("generate", "--trade-rate", "200", "--quote-rate", "400")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=["stopped", "killed"])
async def test_broker_outage_loses_no_trade(
    tmp_path: Path, parts: Parts, database: str, number: signal.Signals
) -> None:
    require_kafka()
    folder = tmp_path / "kafka"
    folder.mkdir()
    with ApacheKafka(folder) as kafka:
        pipeline = Pipeline(parts, tmp_path, kafka.address, database, "away")
        pipeline.create_topics(kafka, 2)
        await pipeline.migrate()
        await pipeline.venue(*MARKET)
        consumer, _ = await pipeline.consumer(TRADES)
        # With a key: a venue closes a socket that is paused for long, and without one returns 1,000 trades only.
        worker, url = await pipeline.worker(KAFKA_QUEUE_MAX_MESSAGES="2000", BINANCE_API_KEY="k" * 64)
        await until_async(lambda: pipeline.count(TRADES) > 500, "trades in the database")
        kafka.stop(number)
        await until_async(
            lambda: not worker_status(url).ready, "the worker to report that it waits for Kafka"
        )
        assert "acknowledge" in worker_status(url).reason
        assert worker_status(url).pending < 10_000
        kafka.start()
        stored = pipeline.count(TRADES)
        await until_async(lambda: pipeline.count(TRADES) > stored + 2000, "trades to flow again")
        await until_async(lambda: nothing_missing(url), "the gaps to be backfilled")
        assert await pipeline.stop(worker) == 0
        acknowledged = newest_in_topic(pipeline)
        await until_async(lambda: newest(pipeline) == acknowledged, "everything acknowledged to be stored")
        assert await pipeline.stop(consumer) == 0
    for symbol, first, last, rows in pipeline.rows(
        "SELECT symbol, min(trade_id), max(trade_id), count(*) FROM trades GROUP BY symbol"
    ):
        assert rows == last - first + 1, f"{symbol} lacks trades"


def nothing_missing(url: str) -> bool:
    return not any(symbol.missing for symbol in worker_status(url).symbols.values())


def newest_in_topic(pipeline: Pipeline) -> dict[str, int]:
    """Return symbol -> the newest trade id that Kafka has acknowledged."""
    newest_ids: dict[str, int] = {}
    for _, value in read_topic(pipeline.environment["KAFKA_BROKER"], pipeline.topics["MARKET_TRADES_TOPIC"]):
        trade = decode_trade(value)
        newest_ids[trade.symbol] = max(trade.trade_id, newest_ids.get(trade.symbol, 0))
    return newest_ids


def newest(pipeline: Pipeline) -> dict[str, int]:
    """Return symbol -> the newest trade id in the database."""
    return dict(pipeline.rows("SELECT symbol, max(trade_id) FROM trades GROUP BY symbol"))
