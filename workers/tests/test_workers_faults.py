"""The worker against faults of the venue: every id of the venue is in the topic, in order."""

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from workers_line import Line, Worker, assert_complete, trade_ids

from marketfeed_devtools.waiting import until

TRADES = 150
HOW_FRAMES_ARE_SPOILED = ("truncated", "not_json", "not_utf8", "missing_field", "wrong_type", "bad_price")


@pytest.fixture(scope="module")
def one_line(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Line]:
    with Line(tmp_path_factory.mktemp("faults")) as running:
        yield running


@pytest.fixture
def line(one_line: Line) -> Line:
    one_line.reset()
    return one_line


def more_trades(line: Line, worker: Worker, count: int = TRADES) -> None:
    """Wait for that many more trades of every symbol, without gaps or messages in flight."""
    before = {symbol: each.last_trade_id or 0 for symbol, each in worker.status().symbols.items()}

    def enough() -> bool:
        status = worker.status()
        return all(
            (each.last_trade_id or 0) >= before[symbol] + count and not each.missing
            for symbol, each in status.symbols.items()
        )

    until(enough, f"{count} more trades and nothing missing: {worker.status()}", 60)


def test_dropped_frames_are_backfilled_and_published_in_order(line: Line) -> None:
    worker = line.worker()
    line.fault("drop", streams=["*@trade"], count=7, chance=0.2, seed=3)
    more_trades(line, worker)
    assert worker.metric("marketfeed_trades_backfilled_total") >= 7
    assert worker.stop() == 0
    assert_complete(line)
    backfilled = [t for trades in line.trades().values() for t in trades if t.origin == "backfill"]
    assert len(backfilled) == 7
    assert {gap.state for gap in line.gaps()} == {"backfilled"}


@pytest.mark.parametrize("transport", ["picows", "websockets"])
def test_connection_cut_loses_nothing(line: Line, transport: str) -> None:
    worker = line.worker(WS_TRANSPORT=transport)
    line.fault("cut", lose_frames=100)
    until(lambda: worker.status().connections[0].reconnects == 1, "a reconnect")
    more_trades(line, worker)
    worker.stop()
    assert_complete(line)
    assert any(gap.state == "backfilled" for gap in line.gaps())


def test_duplicates_and_reordering_are_not_published(line: Line) -> None:
    worker = line.worker()
    line.fault("duplicate", count=30, chance=0.3, seed=5)
    line.fault("reorder", count=30, chance=0.3, seed=6, distance=3)
    more_trades(line, worker)
    worker.stop()
    assert_complete(line)
    for ids in line.update_ids().values():
        assert ids == sorted(set(ids))


def test_corrupt_frames_are_skipped_and_backfilled(line: Line) -> None:
    worker = line.worker()
    for number, how in enumerate(HOW_FRAMES_ARE_SPOILED, start=1):
        line.fault("corrupt", streams=["*@trade"], how=how)
        until(
            lambda seen=number: worker.metric("vendor_fetch_failure_total", reason="bad_frame") == seen,
            f"a frame spoiled as {how} to be noticed",
        )
    more_trades(line, worker)
    worker.stop()
    assert_complete(line)


def test_skipped_ids_are_reported_absent(line: Line) -> None:
    worker = line.worker()
    line.fault("skip_ids", symbols=["BTCUSDT"], count=5)
    more_trades(line, worker)
    worker.stop()
    assert_complete(line)
    (gap,) = line.gaps()
    assert (gap.state, gap.last_id - gap.first_id + 1, gap.missing) == ("absent", 5, [])


def test_restart_backfills_missed_trades(line: Line) -> None:
    first = line.worker()
    more_trades(line, first, 30)
    assert first.stop() == 0
    before = {symbol: entry["last_trade_id"] for symbol, entry in line.ledger().items()}
    until(
        lambda: all(entry["last_trade_id"] > before[s] + 60 for s, entry in line.ledger().items()),
        "trades that nobody reads",
    )
    second = line.worker(BINANCE_API_KEY="k" * 64)  # without one only the newest thousand are available
    more_trades(line, second)
    second.stop()
    assert_complete(line)


def test_restart_after_a_kill_loses_nothing(line: Line) -> None:
    first = line.worker()
    more_trades(line, first, 60)
    first.stop(9)
    second = line.worker(BINANCE_API_KEY="k" * 64)
    more_trades(line, second)
    second.stop()
    for trades in line.trades().values():
        ids = trade_ids(trades)
        assert set(ids) == set(range(min(ids), max(ids) + 1))


@pytest.mark.parametrize("fault", ["server_shutdown", "end_of_life"])
def test_rotation_before_an_announced_close(line: Line, fault: str) -> None:
    worker = line.worker()
    more_trades(line, worker, 20)
    if fault == "server_shutdown":
        line.fault("server_shutdown", close_after_seconds=30)
    else:
        line.fault("end_of_life", notice_seconds=30)
    until(lambda: worker.metric("marketfeed_connection_rotations_total") == 1, "a rotation")
    more_trades(line, worker)
    assert worker.status().connections[0].reconnects == 0
    worker.stop()
    assert_complete(line)
    assert line.gaps() == []


def test_rotation_by_age_without_interruption(line: Line) -> None:
    worker = line.worker(WS_ROTATE_AFTER_SECONDS="2")
    until(lambda: worker.metric("marketfeed_connection_rotations_total") >= 3, "three rotations")
    more_trades(line, worker, 30)
    worker.stop()
    assert_complete(line)
    assert line.gaps() == []


def test_stalled_connection_is_detected_and_rotated(line: Line) -> None:
    worker = line.worker()
    more_trades(line, worker, 100)
    line.fault("stall")
    until(
        lambda: worker.metric("marketfeed_connection_rotations_total", reason="stalled_stream") >= 1,
        "the stalled connection to be replaced",
    )
    more_trades(line, worker, 50)
    worker.stop()
    assert_complete(line)


def test_half_open_connection_is_detected(line: Line) -> None:
    worker = line.worker(WS_IDLE_TIMEOUT_SECONDS="2")
    more_trades(line, worker, 20)
    line.fault("half_open")
    more_trades(line, worker, 100)
    worker.stop()
    assert_complete(line)


def test_quiet_market_does_not_cause_a_reconnect(line: Line) -> None:
    worker = line.worker()
    more_trades(line, worker, 60)
    line.fault("halt", symbols=["BTCUSDT", "ETHUSDT"])
    least = worker.metric("marketfeed_request_weight_used")

    def probed() -> bool:
        nonlocal least
        used, before = worker.metric("marketfeed_request_weight_used"), least
        least = min(least, used)  # it restarts at zero each minute
        return used > before

    until(probed, "a probe of the silence")
    status = worker.status()
    assert status.connections[0].reconnects == 0
    assert worker.metric("marketfeed_connection_rotations_total") == 0
    line.fault("resume", symbols=["BTCUSDT", "ETHUSDT"])
    more_trades(line, worker, 30)
    worker.stop()
    assert_complete(line)


def test_quiet_market_with_an_open_gap_does_not_cause_a_reconnect(line: Line) -> None:
    worker = line.worker(BINANCE_API_KEY="k" * 64, GAP_HOLD_SECONDS="120")
    more_trades(line, worker, 60)
    line.fault("rest_error", endpoint="historicalTrades", status=500, count=1000)
    line.fault("drop", streams=["btcusdt@trade"], count=1)
    until(lambda: worker.status().symbols["BTCUSDT"].missing == 1, "a gap")
    line.fault("halt", symbols=["BTCUSDT", "ETHUSDT"])
    asked = line.requests().get(("trades", "200"), 0)
    until(lambda: line.requests().get(("trades", "200"), 0) >= asked + 2, "probes of both silences")
    assert worker.metric("marketfeed_connection_rotations_total") == 0
    line.control("DELETE", "faults")
    line.fault("resume", symbols=["BTCUSDT", "ETHUSDT"])
    more_trades(line, worker, 30)
    worker.stop()
    assert_complete(line)


def test_backfill_waits_for_a_rate_limit_while_trades_are_flushed(line: Line) -> None:
    worker = line.worker(GAP_HOLD_SECONDS="0.5")
    line.fault("rate_limit", seconds=3)
    line.fault("drop", streams=["btcusdt@trade"], count=2)
    until(lambda: worker.metric("marketfeed_trade_gaps_total", outcome="unresolved") >= 1, "giving up")
    more_trades(line, worker, 100)
    worker.stop()
    assert_complete(line, in_order=False)
    assert {gap.state for gap in line.gaps()} == {"backfilled"}
    assert "returned 418" not in worker.log.read_text()


@pytest.mark.parametrize(
    "rest_fault",
    [
        {"fault": "rest_error", "status": 500, "count": 3},
        {"fault": "rest_error", "status": 200, "html": True, "count": 2},
        {"fault": "rest_delay", "seconds": 1.0, "count": 2},
    ],
    ids=["5xx", "HTML instead of JSON", "slow"],
)
def test_backfill_continues_after_a_rest_fault(line: Line, rest_fault: dict[str, object]) -> None:
    worker = line.worker()
    line.control("POST", "faults", rest_fault)
    line.fault("drop", streams=["btcusdt@trade"], count=2)
    more_trades(line, worker, 100)
    worker.stop()
    assert_complete(line)


def test_broker_outage_pauses_reading_without_loss(tmp_path: Path) -> None:
    with Line(tmp_path, "generate", "--trade-rate", "500", "--quote-rate", "2000") as line:
        worker = line.worker(KAFKA_QUEUE_MAX_MESSAGES="2000")
        line.broker_down()
        until(lambda: worker.metric("marketfeed_reads_paused_total") >= 1, "reading to be paused")
        assert not worker.status().ready
        line.broker_up()
        more_trades(line, worker, 1000)
        worker.stop()
        assert_complete(line)
        assert worker.stop() == 0


def test_backfill_is_bounded_during_a_broker_outage(tmp_path: Path) -> None:
    with Line(tmp_path, "generate", "--symbols", "BTCUSDT", "--trade-rate", "800") as line:

        def last_id() -> int:
            return int(line.ledger()["BTCUSDT"]["last_trade_id"])

        first = line.worker(BINANCE_SYMBOLS="BTCUSDT")
        until(lambda: first.status().symbols["BTCUSDT"].trades > 50, "some trades")
        assert first.stop() == 0
        stopped_at = last_id()
        until(lambda: last_id() > stopped_at + 8000, "a gap of many pages")
        line.fault("rest_delay", seconds=0.3, endpoint="historicalTrades", count=None)
        worker = line.worker(
            wait=False,
            BINANCE_SYMBOLS="BTCUSDT",
            BINANCE_API_KEY="k" * 64,
            KAFKA_QUEUE_MAX_MESSAGES="1000",
        )
        until(lambda: "connection opened" in worker.log.read_text(), "the connection")
        line.broker_down()
        until(lambda: worker.metric("marketfeed_reads_paused_total") >= 1, "the queue to be full", 60)
        full_at = last_id()
        until(lambda: last_id() > full_at + 4000, "time for many pages")
        most = 1000 + 4 * 1000  # the bound, and the pages in flight
        assert worker.status().pending < most
        line.broker_up()
        until(
            lambda: (worker.status().symbols["BTCUSDT"].missing, worker.status().pending < 500) == (0, True),
            "everything",
            90,
        )
        assert worker.stop() == 0
        assert_complete(line, in_order=False)


def test_frozen_worker_keeps_its_connection(tmp_path: Path) -> None:
    with Line(tmp_path) as line:
        worker = line.worker(WS_IDLE_TIMEOUT_SECONDS="2")
        for _ in range(3):
            before = worker.status().symbols["BTCUSDT"].trades
            worker.process.send_signal(signal.SIGSTOP)
            # As with a migrated virtual machine.
            frozen_at = time.monotonic()
            until(lambda: time.monotonic() > frozen_at + 3, "longer than the silence that is allowed")  # noqa: B023
            worker.process.send_signal(signal.SIGCONT)
            until(lambda: worker.status().symbols["BTCUSDT"].trades > before + 50, "trades")  # noqa: B023
        assert worker.status().connections[0].reconnects == 0
        assert worker.stop() == 0
        assert_complete(line)


def test_rest_that_refuses_the_address_is_not_retried_quickly(tmp_path: Path) -> None:
    with Line(tmp_path, "generate", "--symbols", "30", "--trade-rate", "20", "--quote-rate", "1") as line:
        symbols = sorted(line.ledger())
        worker = line.worker(BINANCE_SYMBOLS=",".join(symbols))
        until(lambda: min(each.trades for each in worker.status().symbols.values()) > 100, "trades of each")
        line.fault("rest_error", status=451)
        line.fault("stall")

        def refused() -> int:
            return sum(count for (_, status), count in line.requests().items() if status == "451")

        until(lambda: refused() >= 1, "the first question")
        asked_at = line.ledger()[symbols[0]]["last_trade_id"]
        until(
            lambda: line.ledger()[symbols[0]]["last_trade_id"] > asked_at + 200, "ten seconds of the market"
        )
        # Probes, backfill and the listing: requests in flight at the first refusal, and nothing after it.
        assert refused() <= 8, "refused requests were retried quickly"
