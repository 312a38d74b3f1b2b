"""The worker as a process: exit codes, output, HTTP endpoints."""

import json
import signal
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest
from workers_line import Line, Worker, assert_complete

from marketfeed_devtools.ports import free_port
from marketfeed_devtools.waiting import until


@pytest.fixture(scope="module")
def one_line(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Line]:
    with Line(tmp_path_factory.mktemp("process")) as running:
        yield running


@pytest.fixture
def line(one_line: Line) -> Line:
    one_line.reset()
    return one_line


def get(worker: Worker, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{worker.port()}{path}", timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def test_validate_only_prints_a_table_and_sets_the_exit_code(line: Line) -> None:
    good = line.worker(wait=False, VALIDATE_ONLY="true")
    assert good.process.wait(20) == 0
    assert good.log.read_text().splitlines() == [
        "SYMBOL   STATUS          RESULT",
        "BTCUSDT  TRADING         ok",
        "ETHUSDT  TRADING         ok",
    ]
    line.fault("halt", symbols=["ETHUSDT"])
    bad = line.worker(wait=False, VALIDATE_ONLY="true", BINANCE_SYMBOLS="BTCUSDT,ETHUSDT,NOPEUSDT")
    assert bad.process.wait(20) == 1
    assert bad.log.read_text().splitlines() == [
        "SYMBOL    STATUS          RESULT",
        "BTCUSDT   TRADING         ok",
        "ETHUSDT   HALT            not trading: HALT",
        "NOPEUSDT  -               rejected: unknown to the venue",
    ]
    assert line.connections()["accepted"] == 0
    assert line.trades() == {}


def test_startup_rejects_unknown_symbols_and_reads_the_others(line: Line) -> None:
    worker = line.worker(BINANCE_SYMBOLS="NOPEUSDT,BTCUSDT", LOG_FORMAT="json")
    assert set(worker.status().symbols) == {"BTCUSDT"}
    assert worker.status().refused_symbols == {"NOPEUSDT": "unknown to the venue"}
    assert worker.metric("marketfeed_symbol_refused", symbol="NOPEUSDT", reason="unknown to the venue") == 1
    said = [json.loads(each) for each in worker.log.read_text().splitlines()]
    assert {"level": "error", "symbol": "NOPEUSDT", "reason": "unknown to the venue"}.items() <= next(
        each for each in said if each["event"] == "symbol rejected"
    ).items()


def test_startup_without_valid_symbols_is_an_error(line: Line) -> None:
    worker = line.worker(wait=False, BINANCE_SYMBOLS="NOPEUSDT,NADAUSDT")
    assert worker.process.wait(20) == 1
    last = worker.log.read_text().splitlines()[-1]
    assert last.startswith("error: no valid symbol in BINANCE_SYMBOLS: ")
    assert "NOPEUSDT is unknown to the venue" in last
    assert "NADAUSDT is unknown to the venue" in last


def test_startup_refused_region_over_rest_exits_after_one_request(line: Line) -> None:
    line.fault("rest_error", status=451)
    worker = line.worker(wait=False)
    assert worker.process.wait(20) == 1
    last = worker.log.read_text().splitlines()[-1]
    assert "451: the venue does not serve this region" in last
    assert "not retried" in last
    assert line.requests() == {("exchangeInfo", "451"): 1}


@pytest.mark.parametrize("transport", ["picows", "websockets"])
def test_startup_refused_region_at_the_handshake_is_retried_slowly(line: Line, transport: str) -> None:
    line.fault("refuse", status=451, count=1)
    worker = line.worker(wait=False, WS_TRANSPORT=transport)
    until(lambda: worker.status().connections[0].state == "refused", "the refusal in the status")
    # From now on the venue accepts requests: a retry would succeed and be visible.
    status, reason = get(worker, "/readyz")
    assert status == 503
    assert "the venue does not serve this region" in reason
    assert get(worker, "/livez")[0] == 200, "the liveness probe would cause a useless restart"
    assert worker.metric("vendor_fetch_failure_total", reason="region_refused") == 1
    assert worker.metric("marketfeed_connection_refused", connection="0") == 1
    probes = worker.metric("marketfeed_connection_attempts_used")
    assert probes == 1
    published = [
        each for each in worker.log.read_text().splitlines() if "connection refused by the venue" in each
    ]
    assert len(published) == 1
    assert worker.stop() == 0
    assert line.connections() == {"refused": 1, "accepted": 0}


def test_startup_rate_limited_handshake_is_retried_after_retry_after(line: Line) -> None:
    line.fault("refuse", status=429, retry_after_seconds=2, count=1)
    worker = line.worker(LOG_FORMAT="json")
    said = [json.loads(each) for each in worker.log.read_text().splitlines()]
    ended = next(each for each in said if each["event"] == "connection closed")
    opened = next(each for each in said if each["event"] == "connection opened")
    assert ended["retry_in_seconds"] == 2
    assert _seconds(opened) - _seconds(ended) >= 2
    assert line.connections()["refused"] == 1


def _seconds(entry: dict[str, str]) -> float:
    hours, minutes, seconds = entry["timestamp"].partition("T")[2].rstrip("Z").split(":")
    return int(hours) * 3600 + int(minutes) * 60 + float(seconds)


def test_startup_without_a_broker_ends_at_the_deadline(line: Line) -> None:
    port = free_port()
    worker = line.worker(wait=False, KAFKA_BROKER=f"127.0.0.1:{port}", START_DEADLINE_SECONDS="2")
    assert worker.process.wait(30) == 1
    last = worker.log.read_text().splitlines()[-1]
    assert last.startswith(f"error: no Kafka broker responded at 127.0.0.1:{port} within 2 s")
    assert "check KAFKA_BROKER" in last
    assert "Traceback" not in worker.log.read_text()
    assert line.connections()["accepted"] == 0


def test_startup_without_the_venue_ends_at_the_deadline(line: Line) -> None:
    worker = line.worker(
        wait=False, BINANCE_REST_BASE=f"http://127.0.0.1:{free_port()}", START_DEADLINE_SECONDS="2"
    )
    assert worker.process.wait(30) == 1
    said = worker.log.read_text().splitlines()
    assert any("waiting for the venue" in each for each in said[:-1]), "the log does not have the reason"
    assert said[-1].startswith("error: the venue did not respond within 2 s")
    assert "BINANCE_REST_BASE" in said[-1]


def test_startup_without_validation_does_not_need_rest(line: Line) -> None:
    worker = line.worker(BINANCE_REST_BASE=f"http://127.0.0.1:{free_port()}", VALIDATE_ON_START="false")
    assert worker.status().connections[0].state == "streaming"
    assert worker.stop() == 0


@pytest.mark.parametrize("away", ["venue", "broker"])
def test_shutdown_during_the_startup(line: Line, away: str) -> None:
    address = f"127.0.0.1:{free_port()}"
    variables = {"venue": {"BINANCE_REST_BASE": f"http://{address}"}, "broker": {"KAFKA_BROKER": address}}
    worker = line.worker(wait=False, START_DEADLINE_SECONDS="300", **variables[away])
    until(lambda: "waiting for" in worker.log.read_text(), "it to wait")
    assert worker.stop(seconds=10) == 0
    assert "Traceback" not in worker.log.read_text()


def test_shutdown_flushes_all_messages(line: Line) -> None:
    worker = line.worker()
    until(lambda: worker.status().acknowledged[line.topics["trades"]] >= 100, "some trades")
    before = worker.status()
    assert worker.stop() == 0
    assert "worker stopped, all messages acknowledged" in worker.log.read_text().splitlines()[-1]
    assert_complete(line)
    for symbol, trades in line.trades().items():
        last = before.symbols[symbol].last_trade_id
        assert last is not None
        assert trades[-1].trade_id >= last


def test_shutdown_during_a_broker_outage_ends_in_time_and_reports_the_loss(line: Line) -> None:
    worker = line.worker(DRAIN_DEADLINE_SECONDS="1")
    line.broker_down()
    until(lambda: worker.status().pending >= 20, "messages to wait for the broker")
    assert worker.stop(seconds=20) == 1
    assert "worker stopped with unacknowledged messages" in worker.log.read_text()


def test_shutdown_is_aborted_by_a_second_signal(line: Line) -> None:
    worker = line.worker(DRAIN_DEADLINE_SECONDS="100")
    line.broker_down()
    until(lambda: worker.status().pending >= 20, "messages to wait for the broker")
    worker.process.send_signal(signal.SIGTERM)
    until(lambda: worker.status().reason == "stopping", "the stop")
    assert worker.stop(signal.SIGTERM, seconds=10) == -signal.SIGTERM


def test_startup_with_a_port_in_use_is_an_error(line: Line) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        worker = line.worker(wait=False, METRICS_PORT=str(port))
        assert worker.process.wait(20) == 1
    last = worker.log.read_text().splitlines()[-1]
    assert "METRICS_PORT" in last
    assert str(port) in last


def test_probes_and_status_of_a_ready_worker(line: Line) -> None:
    worker = line.worker(SHARD="btc-eth")
    assert get(worker, "/livez") == (200, "ok\n")
    assert get(worker, "/readyz") == (200, "ok\n")
    assert get(worker, "/nothing")[0] == 404
    until(lambda: all(each.trades and each.quotes for each in worker.status().symbols.values()), "data")
    status = worker.status()
    assert (status.venue, status.shard, status.ready, status.reason) == ("binance_us", "btc-eth", True, "")
    (connection,) = status.connections
    assert (connection.state, connection.streams, connection.reconnects, connection.reason) == (
        "streaming",
        4,
        0,
        "",
    )
    for topic in (line.topics["trades"], line.topics["quotes"]):
        assert status.received[topic] > 0
        assert status.acknowledged[topic] <= status.received[topic]
        assert status.failed[topic] == 0


def test_connections_split_the_symbols(line: Line) -> None:
    for symbol in ("ADAUSDT", "SOLUSDT", "XRPUSDT"):
        line.fault("list", symbols=[symbol], trade_rate=20, quote_rate=20)
    worker = line.worker(BINANCE_SYMBOLS="BTCUSDT,ETHUSDT,ADAUSDT,SOLUSDT,XRPUSDT", WS_SHARD_SIZE="2")
    assert [connection.streams for connection in worker.status().connections] == [4, 4, 2]
    assert line.connections()["accepted"] == 3


def test_logs_are_json_to_the_last_line(line: Line) -> None:
    worker = line.worker(LOG_FORMAT="json")
    line.fault("cut")
    until(lambda: worker.log.read_text().count("connection opened") == 2, "a reconnect")
    assert worker.stop() == 0
    said = [json.loads(each) for each in worker.log.read_text().splitlines()]
    assert {each["logger"].partition(".")[0] for each in said} == {"marketfeed_workers"}
    assert [each["event"] for each in said].count("connection opened") == 2


def test_logs_have_the_broker_outage_once(line: Line) -> None:
    worker = line.worker(LOG_FORMAT="json")
    line.broker_down()

    def said() -> list[str]:
        entries = [json.loads(each) for each in worker.log.read_text().splitlines()]
        return [each["event"] for each in entries if each["logger"] == "librdkafka"]

    refusals = worker.metric("marketfeed_publish_pending_messages")
    until(lambda: any("Connection refused" in each for each in said()), "the client to say so")
    until(lambda: worker.metric("marketfeed_publish_pending_messages") > refusals + 500, "a retry")
    assert len(said()) < 10, "each retry was logged"
