"""Options and settings: invalid ones are reported before any connection."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from marketfeed_cli.__main__ import parser
from marketfeed_cli.market import Source, parse_source


def marketfeed(*arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "marketfeed_cli", *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@pytest.mark.parametrize(
    ("text", "source"),
    [
        ("auto", Source("auto")),
        ("live", Source("live")),
        ("simulated", Source("simulated")),
        ("recording=a=b.gz", Source("recording", Path("a=b.gz"))),
    ],
)
def test_options_parse_sources(text: str, source: Source) -> None:
    assert parse_source(text) == source


@pytest.mark.parametrize("text", ["", "recording", "recording=", "real", "live=x"])
def test_options_reject_invalid_sources(text: str) -> None:
    with pytest.raises(ValueError, match="not one of auto, live, simulated, recording=FILE"):
        parse_source(text)


def test_options_normalize_and_deduplicate_symbols() -> None:
    assert parser().parse_args(["demo", "--symbols", "btcusdt, ETHUSDT,BTCUSDT"]).symbols == (
        "BTCUSDT",
        "ETHUSDT",
    )


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        pytest.param(["demo", "--source", "moon"], "'moon' is not one of auto, live", id="source"),
        pytest.param(["demo", "--seconds", "0"], "'0' is not a number of seconds from 1 to 86400", id="zero"),
        pytest.param(["demo", "--seconds", "soon"], "'soon' is not a number of seconds", id="not a number"),
        pytest.param(["demo", "--symbols", ","], "',' is not a list of symbols", id="no symbols"),
        pytest.param(["demo", "--output", "xml"], "invalid choice: 'xml'", id="output"),
        pytest.param(["replay"], "the following arguments are required: FILE", id="no file"),
        pytest.param([], "the following arguments are required: COMMAND", id="no command"),
    ],
)
def test_options_errors_name_the_option(
    arguments: list[str], error: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exited:
        parser().parse_args(arguments)
    assert exited.value.code == 2
    assert error in capsys.readouterr().err


@pytest.mark.parametrize(
    ("environment", "error"),
    [
        ({"KAFKA_BROKER": "localhost"}, "error: KAFKA_BROKER='localhost' cannot be used"),
        ({"DATABASE_URL": "mysql://root:hunter2@db/x"}, "error: DATABASE_URL=(hidden) cannot be used"),
        ({"VENUE": "nyse"}, "error: VENUE='nyse' cannot be used"),
        ({"MARKET_TRADES_TOPIC": "a b"}, "error: MARKET_TRADES_TOPIC='a b' cannot be used"),
    ],
)
def test_settings_errors_name_the_setting_without_secrets(environment: dict[str, str], error: str) -> None:
    done = marketfeed("demo", "--source", "simulated", **environment)
    assert done.returncode == 2
    assert error in done.stderr
    assert "hunter2" not in done.stdout + done.stderr


def test_live_venue_that_is_unreachable_is_an_error_without_fallback() -> None:
    # Nothing listens on port 1 of the loopback address.
    done = marketfeed("demo", "--source", "live", BINANCE_WS_BASE="ws://127.0.0.1:1")
    assert done.returncode == 1
    assert "error: binance_us is unreachable at 127.0.0.1:1" in done.stderr


@pytest.mark.parametrize(
    "own", [{"KAFKA_BROKER": "127.0.0.1:1"}, {"DATABASE_URL": "postgresql://marketfeed@127.0.0.1:1/feed"}]
)
def test_simulated_trades_are_not_stored_in_a_users_system_by_default(own: dict[str, str]) -> None:
    done = marketfeed("demo", BINANCE_WS_BASE="ws://127.0.0.1:1", **own)
    assert done.returncode == 1
    assert "as venue binance_us: use --source simulated to allow it" in done.stderr


@pytest.mark.parametrize(
    ("content", "error"),
    [
        (None, "cannot be read: No such file or directory"),
        (b"", "holds no frames"),
        (b"yesterday {}\n", "line 1: does not begin with a time in nanoseconds"),
        (b'1 {"stream":"btcusdt@depth","data":{}}\n', "contains neither @trade nor @bookTicker frames"),
    ],
    ids=["missing file", "empty file", "no time", "no trades"],
)
@pytest.mark.parametrize("command", [["replay"], ["demo", "--source"]], ids=["replay", "demo"])
def test_recording_errors_name_the_file(
    command: list[str], content: bytes | None, error: str, tmp_path: Path
) -> None:
    file = tmp_path / "recording"
    if content is not None:
        file.write_bytes(content)
    done = marketfeed(*command, str(file) if command == ["replay"] else f"recording={file}")
    assert done.returncode == 2
    assert f"error: recording {file}" in done.stderr
    assert error in done.stderr


def test_recording_rejects_the_option_symbols(tmp_path: Path) -> None:
    done = marketfeed("demo", "--source", f"recording={tmp_path}/x", "--symbols", "BTCUSDT")
    assert done.returncode == 2
    assert "--symbols and a recording cannot be combined" in done.stderr


@pytest.mark.parametrize("command", ["demo", "replay", "status", "validate"])
def test_options_help_is_printed(command: str) -> None:
    done = marketfeed(command, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"usage: marketfeed {command}")
