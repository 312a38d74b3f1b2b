"""Options and settings: what is wrong is named before anything is opened."""

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
def test_sources(text: str, source: Source) -> None:
    assert parse_source(text) == source


@pytest.mark.parametrize("text", ["", "recording", "recording=", "real", "live=x"])
def test_what_is_no_source(text: str) -> None:
    with pytest.raises(ValueError, match="none of auto, live, simulated, recording=FILE"):
        parse_source(text)


def test_symbols_come_in_capitals_and_once() -> None:
    assert parser().parse_args(["demo", "--symbols", "btcusdt, ETHUSDT,BTCUSDT"]).symbols == (
        "BTCUSDT",
        "ETHUSDT",
    )


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        pytest.param(["demo", "--source", "moon"], "'moon' is none of auto, live", id="source"),
        pytest.param(
            ["demo", "--seconds", "0"], "'0' is not a number of seconds from 1 to 86400", id="no time"
        ),
        pytest.param(["demo", "--seconds", "soon"], "'soon' is not a number of seconds", id="no number"),
        pytest.param(["demo", "--symbols", ","], "',' is not a list of symbols", id="no symbols"),
        pytest.param(["demo", "--output", "xml"], "invalid choice: 'xml'", id="output"),
        pytest.param(["replay"], "the following arguments are required: FILE", id="no file"),
        pytest.param([], "the following arguments are required: COMMAND", id="no command"),
    ],
)
def test_a_wrong_option_is_named(
    arguments: list[str], named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        parser().parse_args(arguments)
    assert ended.value.code == 2
    assert named in capsys.readouterr().err


@pytest.mark.parametrize(
    ("environment", "named"),
    [
        ({"KAFKA_BROKER": "localhost"}, "error: KAFKA_BROKER='localhost' cannot be used"),
        ({"DATABASE_URL": "mysql://root:hunter2@db/x"}, "error: DATABASE_URL=(hidden) cannot be used"),
        ({"VENUE": "nyse"}, "error: VENUE='nyse' cannot be used"),
        ({"MARKET_TRADES_TOPIC": "a b"}, "error: MARKET_TRADES_TOPIC='a b' cannot be used"),
    ],
)
def test_a_wrong_setting_is_named_and_a_secret_is_not_shown(environment: dict[str, str], named: str) -> None:
    ended = marketfeed("demo", "--source", "simulated", **environment)
    assert ended.returncode == 2
    assert named in ended.stderr
    assert "hunter2" not in ended.stdout + ended.stderr


def test_a_live_venue_out_of_reach_is_told_and_not_replaced() -> None:
    # Port 1 of the loopback address: nobody listens there.
    ended = marketfeed("demo", "--source", "live", BINANCE_WS_BASE="ws://127.0.0.1:1")
    assert ended.returncode == 1
    assert "error: binance_us cannot be reached at 127.0.0.1:1" in ended.stderr


@pytest.mark.parametrize(
    "own", [{"KAFKA_BROKER": "127.0.0.1:1"}, {"DATABASE_URL": "postgresql://marketfeed@127.0.0.1:1/feed"}]
)
def test_what_is_the_users_own_gets_no_simulated_trades_unasked(own: dict[str, str]) -> None:
    ended = marketfeed("demo", BINANCE_WS_BASE="ws://127.0.0.1:1", **own)
    assert ended.returncode == 1
    assert "under venue binance_us: if that is wanted, say --source simulated" in ended.stderr


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (None, "cannot be read: No such file or directory"),
        (b"", "holds no frames"),
        (b"yesterday {}\n", "line 1: does not begin with a time in nanoseconds"),
        (b'1 {"stream":"btcusdt@depth","data":{}}\n', "holds neither @trade nor @bookTicker frames"),
    ],
    ids=["no file", "an empty file", "no time", "no trades"],
)
@pytest.mark.parametrize("command", [["replay"], ["demo", "--source"]], ids=["replay", "demo"])
def test_a_recording_that_cannot_be_replayed_is_named(
    command: list[str], content: bytes | None, named: str, tmp_path: Path
) -> None:
    file = tmp_path / "recording"
    if content is not None:
        file.write_bytes(content)
    ended = marketfeed(*command, str(file) if command == ["replay"] else f"recording={file}")
    assert ended.returncode == 2
    assert f"error: recording {file}" in ended.stderr
    assert named in ended.stderr


def test_symbols_of_a_recording_cannot_be_chosen(tmp_path: Path) -> None:
    ended = marketfeed("demo", "--source", f"recording={tmp_path}/x", "--symbols", "BTCUSDT")
    assert ended.returncode == 2
    assert "--symbols and a recording cannot be combined" in ended.stderr


@pytest.mark.parametrize("command", ["demo", "replay", "status", "validate"])
def test_help_answers(command: str) -> None:
    ended = marketfeed(command, "--help")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.startswith(f"usage: marketfeed {command}")
