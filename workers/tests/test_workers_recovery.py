"""Recovery of gaps, first starts, clocks, rate limits and bans."""

import json
import urllib.request
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from workers_line import Line, Worker, assert_complete, trade_ids

from marketfeed_devtools.waiting import until

API_KEY = "k3y" * 21 + "X"


def rest(line: Line, path: str) -> Any:
    """Return a response of the simulator's REST API."""
    with urllib.request.urlopen(f"http://{line.url}/api/v3/{path}", timeout=5) as answer:
        return json.loads(answer.read())


def seen(worker: Worker) -> int:
    return sum(each.trades for each in worker.status().symbols.values())


def settled(worker: Worker, further: int = 100) -> None:
    """Wait for that many more trades, without gaps at the end."""
    before = seen(worker)
    until(
        lambda: (
            seen(worker) >= before + further
            and not any(each.missing for each in worker.status().symbols.values())
        ),
        f"{further} more trades and nothing missing: {worker.status().symbols}",
        60,
    )


def test_recovery_of_old_ids_needs_a_key(tmp_path: Path) -> None:
    with Line(tmp_path, "generate", "--symbols", "BTCUSDT", "--trade-rate", "800") as line:
        first = line.worker(BINANCE_SYMBOLS="BTCUSDT")
        settled(first)
        assert first.stop() == 0
        stopped_at = trade_ids(line.trades()["BTCUSDT"])[-1]
        until(lambda: line.ledger()["BTCUSDT"]["last_trade_id"] > stopped_at + 2500, "a gap of three pages")
        keyless = line.worker(BINANCE_SYMBOLS="BTCUSDT", GAP_HOLD_SECONDS="0.5")
        until(lambda: keyless.metric("marketfeed_trade_gaps_total", outcome="unresolved") >= 1, "giving up")
        assert keyless.status().symbols["BTCUSDT"].missing > 0
        assert keyless.stop() == 0
        (gap,) = line.gaps()
        assert (gap.state, gap.absent) == ("unresolved", [])
        assert gap.missing
        assert gap.first_id == stopped_at + 1

        with_key = line.worker(BINANCE_SYMBOLS="BTCUSDT", BINANCE_API_KEY=API_KEY)
        settled(with_key)
        assert with_key.stop() == 0
        assert_complete(line, in_order=False)
        assert {each.state for each in line.gaps()} == {"backfilled"}
        assert API_KEY not in with_key.log.read_text()


def test_backfill_from_an_id_at_the_first_start(tmp_path: Path) -> None:
    with Line(tmp_path, "generate", "--symbols", "BTCUSDT", "--trade-rate", "200") as line:
        until(lambda: line.traded("BTCUSDT") > 300, "some history")
        first_id = line.ledger()["BTCUSDT"]["first_trade_id"] + 50
        worker = line.worker(BINANCE_SYMBOLS="BTCUSDT", BACKFILL_FROM=str(first_id), BINANCE_API_KEY=API_KEY)
        settled(worker)
        worker.stop()
        assert_complete(line)
        assert trade_ids(line.trades()["BTCUSDT"])[0] == first_id
        # Only for the first start: now there is a checkpoint.
        again = line.worker(
            BINANCE_SYMBOLS="BTCUSDT", BACKFILL_FROM=str(first_id - 20), BINANCE_API_KEY=API_KEY
        )
        settled(again)
        again.stop()
        assert_complete(line)
        assert trade_ids(line.trades()["BTCUSDT"])[0] == first_id


def test_backfill_from_an_id_that_does_not_exist_yet(tmp_path: Path) -> None:
    with Line(tmp_path, "generate", "--symbols", "BTCUSDT", "--trade-rate", "200") as line:
        worker = line.worker(BINANCE_SYMBOLS="BTCUSDT", BACKFILL_FROM=str(10**15))
        settled(worker)
        assert worker.stop() == 0
        assert_complete(line)
        assert "BACKFILL_FROM is above the newest trade id; starting now" in worker.log.read_text()


def test_recovery_after_a_kill_soon_after_the_first_trade(tmp_path: Path) -> None:
    with Line(tmp_path) as line:
        first = line.worker(PROGRESS_INTERVAL_SECONDS="600")
        until(
            lambda: (
                first.metric("kafka_publish_success_total", topic=line.topics["progress"]) >= 2
            ),  # the message of the second symbol may equal the first
            "word of both symbols, long before the interval is over",
        )
        first.stop(9)
        second = line.worker(BINANCE_API_KEY=API_KEY)
        settled(second)
        second.stop()
        for symbol, trades in line.trades().items():
            ids = set(trade_ids(trades))
            assert ids == set(range(min(ids), max(ids) + 1)), (
                f"{symbol} started without its checkpoint and has a gap"
            )


def test_backfill_from_a_time_at_the_first_start(tmp_path: Path) -> None:
    with Line(tmp_path, "generate", "--symbols", "BTCUSDT", "--trade-rate", "200") as line:
        until(lambda: line.traded("BTCUSDT") > 300, "some history")
        rows = rest(line, "trades?symbol=BTCUSDT&limit=1000")
        begin_ms = rows[100]["time"]
        expected = next(row["id"] for row in rows if row["time"] >= begin_ms)
        published = datetime.fromtimestamp(begin_ms / 1000, UTC).isoformat()
        worker = line.worker(BINANCE_SYMBOLS="BTCUSDT", BACKFILL_FROM=published, BINANCE_API_KEY=API_KEY)
        settled(worker)
        worker.stop()
        assert_complete(line)
        assert trade_ids(line.trades()["BTCUSDT"])[0] == expected


@pytest.mark.parametrize("milliseconds", [5000, -5000], ids=["ahead", "behind"])
def test_venue_clock_corrects_latencies(tmp_path: Path, milliseconds: int) -> None:
    with Line(tmp_path) as line:
        line.fault("clock_skew", milliseconds=milliseconds)
        worker = line.worker()
        until(
            lambda: abs(worker.metric("marketfeed_clock_offset_seconds") - milliseconds / 1000) < 1,
            "the offset",
        )
        earlier = worker.metrics()
        settled(worker, 200)
        now = worker.metrics()

        def grown(name: str) -> float:
            return sum(now[each] - earlier.get(each, 0) for each in now if each.startswith(name))

        count = grown("marketfeed_venue_to_socket_seconds_count")
        assert count > 20
        assert grown("marketfeed_venue_to_socket_seconds_sum") / count < 2.5


def test_burst_loses_nothing(tmp_path: Path) -> None:
    with Line(tmp_path, "generate", "--trade-rate", "200", "--quote-rate", "500") as line:
        worker = line.worker()
        line.fault("burst", factor=20, seconds=1)
        settled(worker, 6000)
        assert worker.status().connections[0].reconnects == 0
        assert worker.stop() == 0
        assert_complete(line)
        assert line.gaps() == []


def test_recovery_after_a_policy_violation_close(tmp_path: Path) -> None:
    with Line(tmp_path) as line:
        worker = line.worker()
        line.fault("close", code=1008, reason="Too many requests")
        until(lambda: worker.status().connections[0].reconnects == 1, "a reconnect")
        settled(worker)
        assert worker.stop() == 0
        assert_complete(line)
        assert "closed by the venue with 1008 Too many requests" in worker.log.read_text()


def test_ban_stops_every_request(tmp_path: Path) -> None:
    with Line(tmp_path) as line:
        worker = line.worker()
        settled(worker, 50)
        line.fault("ban", seconds=3)
        line.fault("drop", streams=["*@trade"], count=6, chance=0.5, seed=4)
        until(lambda: worker.metric("marketfeed_venue_blocked_seconds") > 0, "the ban")
        settled(worker, 600)
        worker.stop()
        assert_complete(line)
        refused = {
            status: count
            for by_status in line.control("GET", "ledger")["requests"].values()
            for status, count in by_status.items()
            if status in ("418", "429")
        }
        # Requests in flight at the first 418 fail too: one backfill request per symbol and a probe.
        assert set(refused) == {"418"}
        assert refused["418"] <= 3, "requests were sent during the ban"


def test_subscriptions_of_many_streams_by_paced_commands(tmp_path: Path) -> None:
    with Line(tmp_path, "generate", "--symbols", "210", "--trade-rate", "1", "--quote-rate", "1") as line:
        symbols = [each["symbol"] for each in rest(line, "exchangeInfo")["symbols"]]
        assert len(symbols) == 210
        worker = line.worker(BINANCE_SYMBOLS=",".join(symbols), WS_SHARD_SIZE="210")
        assert [connection.streams for connection in worker.status().connections] == [420]
        until(lambda: all(each.trades for each in worker.status().symbols.values()), "every symbol", 60)
        (connection,) = line.control("GET", "connections")
        assert connection["streams"] == 420 or len(connection["streams"]) == 420
        counted = line.control("GET", "ledger")["connections"]
        assert (counted["accepted"], counted["ended"]) == (1, {})
        # 420 names, at most 200 per command, and the final list.
        assert worker.metric("marketfeed_control_frames_sent_total", kind="command") == 4


def test_delisted_symbol_is_reported_and_does_not_hide_a_stalled_connection(tmp_path: Path) -> None:
    with Line(tmp_path, "generate", "--trade-rate", "100", "--quote-rate", "100") as line:
        worker = line.worker()
        settled(worker, 1000)
        line.fault("delist", symbols=["ETHUSDT"])
        until(lambda: worker.status().refused_symbols == {"ETHUSDT": "delisted"}, "the delisting")
        line.fault("stall")
        until(
            lambda: worker.metric("marketfeed_connection_rotations_total", reason="stalled_stream") >= 1,
            "the stalled connection to be replaced",
        )
        before = worker.status().symbols["BTCUSDT"].trades
        until(lambda: worker.status().symbols["BTCUSDT"].trades > before + 50, "trades again")
        requests = line.control("GET", "ledger")["requests"]["trades"]
        assert requests.get("400", 0) <= 6, "unavailable ids were requested too often"
        worker.stop()
        assert_complete(line)
