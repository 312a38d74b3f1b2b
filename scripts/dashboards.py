#!/usr/bin/env python3
"""Draw pictures of the dashboards for the documentation, with data of running services and faults.

Starts the environment of the query tests (a venue with faults, workers, consumers, Prometheus, and the operator if an
API server is available) for some minutes, and draws every dashboard to docs/images.
"""

import argparse
import asyncio
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / "monitoring/tests"))

import monitoring_stage  # noqa: E402 - in the path appended above

from marketfeed_monitoring import pictures  # noqa: E402
from marketfeed_monitoring.boards import BOARDS  # noqa: E402
from marketfeed_monitoring.boards.overview import OVERVIEW  # noqa: E402
from marketfeed_monitoring.model import Board  # noqa: E402
from marketfeed_monitoring.prometheus import programs  # noqa: E402

STEP_SECONDS = 1.0
RATE_INTERVAL = "10s"
WARM_UP_SECONDS = 20  # longer than the rate interval


def main() -> None:
    """Run the environment for the given time and draw the dashboards."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=180, help="time range of the pictures [180]")
    parser.add_argument(
        "--folder", type=Path, default=ROOT / "docs/images", help="output folder [docs/images]"
    )
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="marketfeed-dashboards-") as folder:
        asyncio.run(_run(Path(folder), given.seconds, given.folder))


async def _run(folder: Path, seconds: float, images: Path) -> None:
    print("starting the services", flush=True)
    async with monitoring_stage.stage(folder, programs()) as stage:
        if stage.without_operator:
            print(f"without the operator: {stage.without_operator}", flush=True)
        await asyncio.sleep(WARM_UP_SECONDS)
        begin = time.time()
        print(f"running for {seconds:g} s, faults after a third", flush=True)
        await asyncio.sleep(seconds / 3)
        await monitoring_stage.inject_faults(stage, dead_letter=False)
        await asyncio.sleep(seconds * 2 / 3)
        for board in BOARDS:
            if board.uid != "marketfeed-operator" or not stage.without_operator:
                _draw(board, stage, begin, images / f"{board.uid}.png")
        print("losing trades permanently, for the overview with faults", flush=True)
        monitoring_stage.lose_trades_permanently(stage)
        await monitoring_stage.inject_faults(stage)
        await asyncio.sleep(45)
        _draw(OVERVIEW, stage, begin, images / f"{OVERVIEW.uid}-trouble.png")


def _draw(board: Board, stage: monitoring_stage.Stage, begin: float, file: Path) -> None:
    variables = {"__rate_interval": RATE_INTERVAL} | {each.name: ".*" for each in board.variables}
    span = pictures.Span(begin, time.time(), STEP_SECONDS, variables)
    pictures.draw(board, stage.kubernetes, span, file)
    print(f"{file}: {file.stat().st_size / 1000:.0f} kB", flush=True)


if __name__ == "__main__":
    main()
