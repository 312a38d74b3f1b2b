"""The expected rows of the recording."""

import gzip
import json
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

from integration_pipeline import Pipeline

TRADE_ROWS = """
SELECT symbol, trade_id, price::text, qty::text, buyer_is_maker, trade_time_us FROM trades ORDER BY 1, 2
"""
QUOTE_ROWS = """
SELECT symbol, update_id, bid_price::text, bid_qty::text, ask_price::text, ask_qty::text FROM book_tickers ORDER BY 1, 2
"""

Row = tuple[object, ...]


class Recorded(NamedTuple):
    """Rows in the order of the queries above."""

    trades: list[Row]
    quotes: list[Row]


def recorded(path: Path) -> Recorded:
    """Return the rows of the recording's frames, parsed by Python's own JSON instead of the project's codec."""
    trades: dict[tuple[str, int], Row] = {}
    quotes: dict[tuple[str, int], Row] = {}
    with gzip.open(path) as lines:
        for line in lines:
            frame = json.loads(line.split(b" ", 1)[1])
            data = frame["data"]
            if frame["stream"].endswith("@trade"):
                row = (data["s"], data["t"], data["p"], data["q"], data["m"], data["T"] * 1000)
                trades[data["s"], data["t"]] = row
            else:
                row = (data["s"], data["u"], data["b"], data["B"], data["a"], data["A"])
                quotes[data["s"], data["u"]] = row
    return Recorded([trades[key] for key in sorted(trades)], [quotes[key] for key in sorted(quotes)])


def stored(pipeline: Pipeline) -> Recorded:
    """Return the rows of the tables."""
    return Recorded(pipeline.rows(TRADE_ROWS), pipeline.rows(QUOTE_ROWS))


def audited(pipeline: Pipeline) -> tuple[int, dict[str, Any]]:
    """Return exit code and report of the users' command."""
    done = subprocess.run(
        [sys.executable, "-m", "marketfeed_cli", "audit", "--deep", "-o", "json"],
        env=pipeline.environment,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, json.loads(done.stdout)
