"""Rolling upgrade from the version before, and its rollback: processes of both versions on one Kafka and database."""

import io
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest
from integration_kafka import read_topic
from integration_ledger import assert_whole, flowing, market_ended, newest_ids
from integration_pipeline import QUOTES, TRADES, Pipeline, worker_status
from integration_recording import audited

from marketfeed_cli.process import Part
from marketfeed_devtools.waiting import until_async
from marketfeed_wire import decode_gap

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
PREVIOUS = "b42e29a"
"""The last commit before names followed docs/design/vocabulary.md."""
MEMBERS = ("wire", "chassis", "workers", "consumers")
MARKET = ("generate", "--trade-rate", "40", "--quote-rate", "40")

Variables = dict[str, str]
NEW: Variables = {}


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Variables:
    """Return the environment in which this interpreter runs the version before, with its source from the history."""
    git = shutil.which("git")
    sources = [f"{member}/src" for member in MEMBERS]
    archive = git and subprocess.run(
        [git, "-C", str(ROOT), "archive", PREVIOUS, *sources], capture_output=True, check=False
    )
    if not archive or archive.returncode:
        pytest.skip(f"the version before, {PREVIOUS}, is not in the history: git fetch --unshallow")
    folder = tmp_path_factory.mktemp("previous")
    with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as files:
        files.extractall(folder, filter="data")
    return {"PYTHONPATH": ":".join(str(folder / source) for source in sources)}


@pytest.mark.parametrize(
    "new_pipeline", [pytest.param("Apache Kafka", marks=pytest.mark.kafka)], indirect=True
)
async def test_upgrade_and_rollback_lose_no_trade_and_publish_none_twice(
    new_pipeline: Pipeline, old: Variables
) -> None:
    pipeline = new_pipeline
    await pipeline.migrate(**old)
    assert schema(pipeline) == "0007", "this is not the version before"
    await pipeline.venue(*MARKET)
    consumers = [(await pipeline.consumer(table, **old))[0] for table in (TRADES, QUOTES)]
    worker, url = await started(pipeline, old)
    since = newest_ids(pipeline)
    await gap_stored(pipeline, url)
    await pipeline.migrate()
    assert schema(pipeline) > "0007"
    for version in (NEW, old):  # an upgrade of the workers before the consumers, and its rollback
        assert await pipeline.stop(worker) == 0
        worker, url = await started(pipeline, version)
        await gap_stored(pipeline, url)
    assert states(pipeline) == {"filled"}, "consumers of the version before store each record"
    for consumer in consumers:
        assert await pipeline.stop(consumer) == 0
    for table in (TRADES, QUOTES):
        await pipeline.consumer(table)
    await gap_stored(pipeline, url)
    assert await pipeline.stop(worker) == 0
    worker, url = await started(pipeline, NEW)
    await gap_stored(pipeline, url)
    assert states(pipeline) == {"filled", "backfilled"}
    await market_ended(pipeline, url)
    assert await pipeline.stop(worker) == 0
    published = assert_whole(pipeline, pipeline.environment["KAFKA_BROKER"], since)
    await until_async(lambda: pipeline.count("trades") == published, "every trade in the database")
    await until_async(lambda: gaps_in_table(pipeline) == gaps_in_topic(pipeline), "every gap record")
    assert [pipeline.count(table) for table in ("dead_letters", "trade_conflicts", "missing_trades")] == [
        0
    ] * 3
    code, report = audited(pipeline)
    assert (code, report["complete"]) == (0, True)


async def started(pipeline: Pipeline, version: Variables) -> tuple[Part, str]:
    """Start a worker and wait until trades flow."""
    # With a key the venue returns old trades by id, however long the start takes.
    worker, url = await pipeline.worker(BINANCE_API_KEY="k" * 64, **version)
    await until_async(lambda: worker_status(url).ready, "the worker to be ready")
    await flowing(pipeline, url, 20)
    return worker, url


async def gap_stored(pipeline: Pipeline, url: str) -> None:
    """Lose two trades, and wait until the gap is backfilled and a consumer has stored its record."""
    before = gaps_in_table(pipeline)
    pipeline.fault("drop", streams=["btcusdt@trade"], count=2)
    await until_async(
        lambda: len(gaps_in_table(pipeline)) > len(before) and not any(gaps_in_table(pipeline).values()),
        f"the record of a backfilled gap: {worker_status(url)}",
    )


def schema(pipeline: Pipeline) -> str:
    return str(pipeline.rows("SELECT version_num FROM marketfeed_schema_version")[0][0])


def states(pipeline: Pipeline) -> set[str]:
    return {str(state) for (state,) in pipeline.rows("SELECT DISTINCT state FROM trade_gaps")}


def gaps_in_table(pipeline: Pipeline) -> dict[tuple[str, int], list[list[int]]]:
    """Return (symbol, first id) -> ids still missing of each stored gap."""
    rows = pipeline.rows("SELECT symbol, first_id, missing FROM trade_gaps")
    return {(symbol, first_id): missing for symbol, first_id, missing in rows}


def gaps_in_topic(pipeline: Pipeline) -> dict[tuple[str, int], list[list[int]]]:
    """Return the same of the newest record of each gap."""
    records = read_topic(pipeline.environment["KAFKA_BROKER"], pipeline.topics["MARKET_GAPS_TOPIC"])
    gaps = [decode_gap(value) for _, value in records]
    return {(gap.symbol, gap.first_id): [list(each) for each in gap.missing] for gap in gaps}
