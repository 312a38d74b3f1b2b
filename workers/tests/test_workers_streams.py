"""Liveness per stream with the worker process: detection, status, rotation, backfill."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from workers_line import Line, Worker, assert_complete

from marketfeed_devtools.waiting import until

BUSY = ("generate", "--trade-rate", "60", "--quote-rate", "60")


@pytest.fixture(scope="module")
def one_line(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Line]:
    with Line(tmp_path_factory.mktemp("streams"), *BUSY) as running:
        yield running


@pytest.fixture
def line(one_line: Line) -> Line:
    one_line.reset()
    return one_line


def states(worker: Worker) -> dict[str, str]:
    """Return the state of each stream: "BTCUSDT trades" -> "live"."""
    return {
        f"{symbol} {name}": stream.state
        for symbol, each in worker.status().symbols.items()
        for name, stream in each.streams.items()
    }


def busy_worker(line: Line) -> Worker:
    """Start a worker and wait until every stream has a history."""
    worker = line.worker()
    until(
        lambda: all(
            stream.bound_seconds <= 4
            for each in worker.status().symbols.values()
            for stream in each.streams.values()
        ),
        "a history of every stream",
    )
    return worker


@pytest.mark.parametrize(
    "streams",
    [
        pytest.param(["btcusdt@trade"], id="trades stall, quotes are delivered"),
        pytest.param(["ethusdt@bookTicker"], id="quotes stall, trades are delivered"),
        pytest.param(["btcusdt@trade", "btcusdt@bookTicker"], id="both streams of one symbol of two"),
    ],
)
def test_stalled_stream_is_detected_and_its_connection_rotated(line: Line, streams: list[str]) -> None:
    worker = busy_worker(line)
    line.fault("stall", streams=streams)
    until(
        lambda: worker.metric("marketfeed_connection_rotations_total", reason="stalled_stream") >= 1,
        "the replacement",
    )
    until(worker.ready, "readiness")
    assert set(states(worker).values()) == {"live"}
    log = worker.log.read_text()
    assert any(f"stream={stream}" in log for stream in streams)
    assert worker.status().connections[0].reconnects == 0
    worker.stop()
    assert_complete(line)


def test_stalled_stream_on_every_connection_is_reported_and_backfilled(line: Line) -> None:
    worker = busy_worker(line)
    line.fault("drop", streams=["btcusdt@trade"], count=None)
    until(lambda: states(worker)["BTCUSDT trades"] == "stalled", "the stall")
    status = worker.status()
    assert not status.ready
    assert "btcusdt@trade is stalled" in status.reason
    assert worker.metric("marketfeed_stream_ready", symbol="BTCUSDT", stream="trade") == 0
    assert worker.metric("marketfeed_stream_ready") == 3
    behind = line.ledger()["BTCUSDT"]["last_trade_id"]
    until(lambda: (worker.status().symbols["BTCUSDT"].last_trade_id or 0) >= behind, "backfilled trades")
    until(lambda: "either" in worker.log.read_text(), "a failed rotation")
    assert worker.metric("marketfeed_connection_rotations_total") == 0, (
        "a connection without the stream was put into use"
    )
    line.control("DELETE", "faults")
    until(worker.ready, "readiness")
    worker.stop()
    assert_complete(line)


def test_stalled_stream_without_rest_is_unverified_and_rotated(line: Line) -> None:
    worker = busy_worker(line)
    line.fault("rest_error", status=500, count=10_000)
    line.fault("drop", streams=["ethusdt@trade"], count=None)
    until(lambda: states(worker)["ETHUSDT trades"] == "unverified", "the silence")
    assert "REST does not respond" in worker.status().reason
    line.control("DELETE", "faults")
    until(worker.ready, "readiness")
    worker.stop()
    assert_complete(line)


def test_illiquid_symbol_does_not_block_readiness(tmp_path: Path) -> None:
    with Line(tmp_path, "generate", "--trade-rate", "0.0001", "--quote-rate", "0.0001") as line:
        worker = line.worker()
        assert set(states(worker).values()) == {"idle"}
        assert worker.status().received[line.topics["trades"]] == 0


def test_illiquid_symbol_without_rest_is_not_ready(tmp_path: Path) -> None:
    with Line(tmp_path, "generate", "--trade-rate", "0.0001", "--quote-rate", "0.0001") as line:
        worker = line.worker(wait=False, VALIDATE_ON_START="false", READY_QUIET_SECONDS="1")
        line.fault("rest_error", status=500, count=10_000)
        until(lambda: set(states(worker).values()) == {"unverified"}, "two seconds without a response")
        assert not worker.status().ready
