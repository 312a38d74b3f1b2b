"""Recorded frames through simulator, worker, Kafka and consumers into PostgreSQL: the tables equal the recording."""

from functools import partial
from pathlib import Path

import pytest
from integration_pipeline import QUOTES, TRADES, Pipeline, worker_status
from integration_recording import TRADE_ROWS, audited, recorded, stored

from marketfeed_devtools.waiting import until_async

pytestmark = pytest.mark.integration

# The embedded broker keeps 5 MB of a partition: the consumers read meanwhile, and sustain the venue's rate.
SPEED = "60"


async def test_tables_equal_the_recording_row_by_row(pipeline: Pipeline, recording: Path) -> None:
    expected = recorded(recording)
    assert len(expected.trades) == 18_556
    await pipeline.venue("replay", str(recording), "--speed", SPEED, "--wait-for-subscribers")
    for table in (TRADES, QUOTES):
        await pipeline.consumer(table)
    worker, url = await pipeline.worker()
    await until_async(
        lambda: (
            pipeline.count(TRADES) >= len(expected.trades) and pipeline.count(QUOTES) >= len(expected.quotes)
        ),
        "every row",
    )
    status = worker_status(url)
    for topic in (pipeline.topics["MARKET_TRADES_TOPIC"], pipeline.topics["MARKET_BOOK_TOPIC"]):
        assert status.received[topic] == status.acknowledged[topic]
    assert await pipeline.stop(worker) == 0
    assert stored(pipeline) == expected
    assert pipeline.count("dead_letters") == 0
    code, report = audited(pipeline)
    assert (code, report["complete"]) == (0, True)
    assert sum(hour["stored"] for hour in report["hours"]) == len(expected.trades)


def _has(pipeline: Pipeline, trades: int) -> bool:
    return pipeline.count(TRADES) >= trades


async def test_consumer_killed_three_times_changes_nothing(pipeline: Pipeline, recording: Path) -> None:
    expected = recorded(recording)
    await pipeline.venue("replay", str(recording), "--speed", SPEED, "--wait-for-subscribers")
    await pipeline.consumer(QUOTES)
    # Small batches, so that the kills occur between and within many transactions.
    consumer, _ = await pipeline.consumer(TRADES, BATCH_MAX_ROWS="500")
    await pipeline.worker()
    for kill in (1, 2, 3):
        enough = len(expected.trades) * kill // 4
        await until_async(partial(_has, pipeline, enough), f"{enough} trades")
        pipeline.kill(consumer)
        consumer, _ = await pipeline.consumer(TRADES, BATCH_MAX_ROWS="500")
    await until_async(
        lambda: (
            pipeline.count(TRADES) >= len(expected.trades) and pipeline.count(QUOTES) >= len(expected.quotes)
        ),
        "every row",
    )
    assert stored(pipeline) == expected


async def test_backfill_after_a_disconnect_reports_every_lost_id(pipeline: Pipeline, recording: Path) -> None:
    expected = recorded(recording)
    await pipeline.venue("replay", str(recording), "--speed", SPEED, "--wait-for-subscribers")
    for table in (TRADES, QUOTES):
        await pipeline.consumer(table)
    pipeline.fault("cut", after_frames=30_000, lose_frames=4_000)
    # With a key the venue returns old trades by id. Without one it returns the newest 1,000, and at this rate those are
    # replaced in a third of a second.
    _, url = await pipeline.worker(BINANCE_API_KEY="any")
    await until_async(lambda: pipeline.ledger()["finished"], "the end of the recording")
    await until_async(lambda: pipeline.count(TRADES) >= len(expected.trades), "every trade")
    assert pipeline.rows(TRADE_ROWS) == expected.trades
    status = worker_status(url)
    assert status.connections[0].reconnects == 1
    assert not any(each.missing for each in status.symbols.values())
    gaps = pipeline.rows("SELECT symbol, first_id, last_id, state FROM trade_gaps")
    backfilled = {
        (symbol, trade_id)
        for symbol, trade_id in pipeline.rows("SELECT symbol, trade_id FROM trades WHERE origin = 'backfill'")
    }
    reported = {(symbol, each) for symbol, first, last, _ in gaps for each in range(first, last + 1)}
    assert backfilled, "the disconnect lost no trade, so the test is void"
    assert backfilled == reported
    assert {state for *_, state in gaps} == {"backfilled"}


async def test_gap_that_cannot_be_backfilled_is_reported_as_missing(
    pipeline: Pipeline, recording: Path
) -> None:
    expected = recorded(recording)
    await pipeline.venue("replay", str(recording), "--speed", SPEED, "--wait-for-subscribers")
    for table in (TRADES, QUOTES):
        await pipeline.consumer(table)
    pipeline.fault("rest_error", status=500, endpoint="trades")
    pipeline.fault("rest_error", status=500, endpoint="aggTrades")
    pipeline.fault("cut", after_frames=30_000, lose_frames=4_000)
    _, url = await pipeline.worker(GAP_HOLD_SECONDS="1")
    await until_async(lambda: pipeline.ledger()["finished"], "the end of the recording")

    def unresolved() -> set[tuple[object, ...]]:
        gaps = pipeline.rows("SELECT symbol, first_id, last_id FROM trade_gaps WHERE state = 'unresolved'")
        return {(symbol, each) for symbol, first, last in gaps for each in range(first, last + 1)}

    def lacking() -> set[tuple[object, ...]]:
        return {row[:2] for row in expected.trades} - {row[:2] for row in pipeline.rows(TRADE_ROWS)}

    await until_async(
        lambda: unresolved() and unresolved() == lacking(), "every lost id to be reported, and no other"
    )
    assert sum(each.missing for each in worker_status(url).symbols.values()) == len(lacking())
    code, report = audited(pipeline)
    assert (code, report["complete"]) == (1, False)
    missing = [(hour["symbol"], span) for hour in report["hours"] for span in hour["missing"]]
    assert {
        (symbol, each) for symbol, span in missing for each in range(span["first_id"], span["last_id"] + 1)
    } == lacking()
