"""Settings of the worker: errors, their texts, and hidden values."""

import os
import socket
import subprocess
import sys

import pytest
from workers_support import MakeSettings

from marketfeed_service import settings as service_settings
from marketfeed_service.errors import SettingsError
from marketfeed_workers.settings import WorkerSettings


def refusal(**variables: str) -> str:
    with pytest.raises(SettingsError) as caught:
        service_settings.read(WorkerSettings, {"BINANCE_SYMBOLS": "BTCUSDT", **variables})
    return str(caught.value)


@pytest.mark.parametrize(
    ("variable", "value", "allowed"),
    [
        ("VENUE", "binance_eu", "binance_us or binance"),
        ("BINANCE_WS_BASE", "https://stream.binance.us", "ws:// or wss://"),
        ("BINANCE_WS_BASE", "stream.binance.us:9443", "ws:// or wss://"),
        ("BINANCE_REST_BASE", "wss://api.binance.us", "http:// or https://"),
        ("BINANCE_WS_BASE", "ws://", "ws:// or wss://"),
        ("BINANCE_WS_BASE", "ws://:9443", "ws:// or wss://"),
        ("BINANCE_WS_BASE", "ws://stream.binance.us:99999", "ws:// or wss://"),
        ("BINANCE_WS_BASE", "ws://stream.binance.us:port", "ws:// or wss://"),
        ("BINANCE_WS_BASE", "ws://stream..us:9443", "ws:// or wss://"),
        ("BINANCE_WS_BASE", f"ws://{'x' * 70}:9443", "ws:// or wss://"),
        ("BINANCE_REST_BASE", "https://[::1", "http:// or https://"),
        ("BINANCE_SYMBOLS", "btcusdt", "in capitals"),
        ("BINANCE_SYMBOLS", "BTCUSDT,BTC USDT", "in capitals"),
        ("BINANCE_SYMBOLS", "BTCUSDT,ETHUSDT,BTCUSDT", "symbols to subscribe"),
        ("WS_SHARD_SIZE", "0", "1 to 512"),
        ("WS_SHARD_SIZE", "513", "1 to 512"),
        ("WS_SHARD_SIZE", "many", "1 to 512"),
        ("WS_TRANSPORT", "aiohttp", "picows (fast) or websockets"),
        ("WS_OPEN_TIMEOUT_SECONDS", "0", "connection attempt"),
        ("WS_OPEN_TIMEOUT_SECONDS", "nan", "connection attempt"),
        ("WS_IDLE_TIMEOUT_SECONDS", "-1", "without a frame"),
        ("WS_ROTATE_AFTER_SECONDS", "0", "age"),
        ("WS_ROTATE_WINDOW", "2am-4am", "such as 02:00-04:30"),
        ("WS_ROTATE_WINDOW", "02:00-24:30", "such as 02:00-04:30"),
        ("BACKFILL_FROM", "yesterday", "a trade id, or a time such as"),
        ("BACKFILL_FROM", "²", "a trade id, or a time such as"),
        ("BACKFILL_FROM", "-5", "a trade id, or a time such as"),
        ("GAP_HOLD_SECONDS", "inf", "missing ones"),
        ("GAP_HOLD_TRADES", "1.5", "reorder buffers"),
        ("VENUE_BUDGET_SHARE", "0", "share this address"),
        ("VALIDATE_ON_START", "perhaps", "true or false"),
        ("VALIDATE_ONLY", "2", "exit 0 or 1"),
        ("BINANCE_REST_BASE", "https://api.binance.us:0", "http:// or https://"),
        ("KAFKA_BROKER", "localhost", "host:port"),
        ("KAFKA_BROKER", "localhost:99999", "host:port"),
        ("KAFKA_BROKER", "localhost:0", "host:port"),
        ("KAFKA_BROKER", "one:9092,two:65536", "host:port"),
        ("MARKET_TRADES_TOPIC", "trades of mine", "topic of trades"),
        ("MARKET_BOOK_TOPIC", "..", "topic of top-of-book quotes"),
        ("MARKET_GAPS_TOPIC", "gaps/mine", "gaps in trade ids"),
        ("MARKET_PROGRESS_TOPIC", "p" * 250, "topic of checkpoints"),
        ("KAFKA_TOPIC_RETENTION_HOURS", "0", "in hours"),
        ("KAFKA_ACKS", "2", "all, 1 or 0"),
        ("KAFKA_LINGER_MS", "-1", "a batch waits"),
        ("KAFKA_COMPRESSION", "brotli", "none, gzip, snappy, lz4 or zstd"),
        ("KAFKA_QUEUE_MAX_MESSAGES", "999", "reading is paused"),
        ("KAFKA_QUEUE_MAX_BYTES", str(2**31), "reading is paused"),
        ("METRICS_PORT", "65536", "port of /metrics"),
        ("LOG_LEVEL", "TRACE", "DEBUG, INFO, WARNING or ERROR"),
        ("LOG_FORMAT", "xml", "text, or json"),
        ("START_DEADLINE_SECONDS", "0", "how long to wait at start"),
    ],
)
def test_setting_error_has_variable_value_and_what_is_allowed(
    variable: str, value: str, allowed: str
) -> None:
    message = refusal(**{variable: value})
    assert message.startswith(f"{variable}={value!r} ")
    assert allowed in message
    assert "\n" not in message


def test_setting_symbols_missing() -> None:
    for symbols in ("", "  ", ",", " , ,"):
        with pytest.raises(SettingsError, match="BINANCE_SYMBOLS"):
            service_settings.read(WorkerSettings, {"BINANCE_SYMBOLS": symbols})


def test_setting_errors_are_reported_together() -> None:
    lines = refusal(VENUE="x", WS_SHARD_SIZE="0", KAFKA_ACKS="2").splitlines()
    assert [line.partition("=")[0] for line in lines] == ["VENUE", "WS_SHARD_SIZE", "KAFKA_ACKS"]


def test_setting_symbols_named_twice() -> None:
    assert "named twice: BTCUSDT" in refusal(BINANCE_SYMBOLS="BTCUSDT,ETHUSDT,BTCUSDT")


@pytest.mark.parametrize(
    "variables",
    [
        {"MARKET_TRADES_TOPIC": "t", "MARKET_BOOK_TOPIC": "t"},
        {"MARKET_PROGRESS_TOPIC": "market.trades.raw"},
        {"MARKET_GAPS_TOPIC": "market.progress"},
    ],
    ids=["trades and quotes", "progress among the trades", "gaps among the progress"],
)
def test_setting_topics_must_differ(variables: dict[str, str]) -> None:
    message = refusal(**variables)
    assert next(iter(variables.values())) in message
    assert "differ" in message


def test_setting_api_key_invalid_in_a_header_is_rejected_and_not_shown() -> None:
    message = refusal(BINANCE_API_KEY="s3cret\nSECOND=line")
    assert message.startswith("BINANCE_API_KEY=(hidden) cannot be used: ")
    assert "s3cret" not in message


def test_setting_credentials_in_an_address_are_rejected_and_not_shown() -> None:
    message = refusal(BINANCE_WS_BASE="wss://me:s3cret@stream.binance.us:9443")
    assert message.startswith("BINANCE_WS_BASE='wss://(hidden)@stream.binance.us:9443' cannot be used: ")
    assert "s3cret" not in message


def test_setting_api_key_is_never_shown(make_settings: MakeSettings) -> None:
    chosen = make_settings(BINANCE_API_KEY="k3y-of-mine", KAFKA_SASL_PASSWORD="")
    assert chosen.binance_api_key.get_secret_value() == "k3y-of-mine"
    assert "k3y" not in repr(chosen) + str(chosen) + chosen.model_dump_json()


def test_setting_defaults(make_settings: MakeSettings) -> None:
    chosen = make_settings()
    assert chosen.binance_symbols == ("BTCUSDT", "ETHUSDT")
    assert (chosen.market_trades_topic, chosen.market_book_topic) == (
        "market.trades.raw",
        "market.book_ticker.raw",
    )
    assert (chosen.kafka_acks, chosen.venue, chosen.metrics_port) == ("all", "binance_us", 8000)
    assert (chosen.validate_on_start, chosen.validate_only, chosen.kafka_create_topics) == (True, False, True)


def test_setting_symbols_allow_spaces(make_settings: MakeSettings) -> None:
    assert make_settings(BINANCE_SYMBOLS=" BTCUSDT , ETHUSDT,").binance_symbols == ("BTCUSDT", "ETHUSDT")


def run_worker(*arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "marketfeed_workers", *arguments],
        env={"PATH": os.environ["PATH"], **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_setting_errors_exit_2_before_anything_is_opened() -> None:
    with socket.create_server(("127.0.0.1", 0)) as anything:
        anything.setblocking(False)
        port = anything.getsockname()[1]
        ended = run_worker(
            BINANCE_SYMBOLS="btcusdt",
            WS_SHARD_SIZE="0",
            BINANCE_WS_BASE=f"ws://127.0.0.1:{port}",
            BINANCE_REST_BASE=f"http://127.0.0.1:{port}",
            KAFKA_BROKER=f"127.0.0.1:{port}",
        )
        assert ended.returncode == 2
        assert ended.stderr.splitlines()[0].startswith("error: BINANCE_SYMBOLS='btcusdt' ")
        assert ended.stderr.splitlines()[1].startswith("error: WS_SHARD_SIZE='0' ")
        assert "Traceback" not in ended.stderr
        with pytest.raises(BlockingIOError):
            anything.accept()


def test_cli_help_lists_every_variable() -> None:
    ended = run_worker("--help")
    assert ended.returncode == 0
    for name, _, description in service_settings.describe(WorkerSettings):
        assert name in ended.stdout
        assert description, f"{name} says nothing about itself"


def test_cli_unknown_argument_is_rejected() -> None:
    ended = run_worker("--symbols", "BTCUSDT")
    assert ended.returncode == 2
    assert "--symbols" in ended.stderr
