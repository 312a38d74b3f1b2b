"""Output without a terminal."""

from typing import Any

import pytest
from rich.console import Console

from marketfeed_cli.observe import Price
from marketfeed_cli.report import Latency
from marketfeed_cli.screen import PLAIN_SECONDS, Flow, Screen, Snapshot, SymbolLine, _table


def snapshot(seconds: float, **changes: Any) -> Snapshot:
    line = SymbolLine("BTCUSDT", Price("61685.99000000", "61685.98", None), 12, 3.5, Latency(1_000, 20_000))
    values: dict[str, Any] = {
        "seconds": seconds,
        "total_seconds": 30.0,
        "trades": Flow(14, 13, 12),
        "quotes": Flow(24, 23, 22),
        "missing": 0,
        "symbols": [line],
    }
    return Snapshot(**(values | changes))


def test_screen_prints_plain_lines_at_intervals(capsys: pytest.CaptureFixture[str]) -> None:
    with Screen("text").live() as show:
        for seconds in (0.5, 1.0, 0.5 + PLAIN_SECONDS, 1.0 + PLAIN_SECONDS):
            show(snapshot(seconds))
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert "trades 14 received 13 acknowledged 12 committed; quotes 24 received" in lines[0]
    assert lines[0].endswith("missing 0; latency p99 20 ms")


def test_screen_with_json_output_does_not_write_to_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    screen = Screen("json")
    with screen.live() as show:
        show(snapshot(1))
    with screen.step("database") as show:
        show("embedded")
    screen.endpoints({"database": "postgresql://…"})
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "  database   embedded\n" in captured.err


def test_screen_ends_the_line_of_a_failed_step(capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        with Screen("text").step("database"):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert capsys.readouterr().out == "  database   \n"


def test_screen_progress_prints_first_and_last_line(capsys: pytest.CaptureFixture[str]) -> None:
    with Screen("text").progress(1_000) as show:
        for done in (0, 10, 999, 1_000):
            show(done, done / 1_000)
    lines = capsys.readouterr().out.splitlines()
    assert [line.strip() for line in lines] == [
        "0 of 1,000 frames stored after 0 s",
        "1,000 of 1,000 frames stored after 1 s",
    ]


def test_screen_table_has_a_row_per_symbol_and_the_missing_ids() -> None:
    console = Console(width=110)
    with console.capture() as captured:
        console.print(_table(snapshot(40.0, missing=3, note="connection 0: closed")))
    text = captured.get()
    row = next(line for line in text.splitlines() if "BTCUSDT" in line)
    assert row.split() == ["BTCUSDT", "61,685.99", "61,685.98", "-", "12", "3.5/s", "1.0", "ms", "20", "ms"]
    assert "30 of 30 s" in text
    assert "missing trade ids: 3" in text
    assert "connection 0: closed" in text
