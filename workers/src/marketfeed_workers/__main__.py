"""The command `marketfeed-worker`."""

import os
import sys

import uvloop

from marketfeed_service import logs, settings
from marketfeed_service.process import exit_code_of
from marketfeed_workers import worker
from marketfeed_workers.settings import WorkerSettings


def main() -> None:
    """Entry point of the command."""
    settings.parser(
        "marketfeed-worker",
        "Reads a venue's trades and quotes over WebSockets, detects and backfills gaps, publishes to Kafka.",
        WorkerSettings,
    ).parse_args()
    sys.exit(exit_code_of(_run))


def _run() -> int:
    chosen = settings.read(WorkerSettings, os.environ)
    logs.configure(chosen.log_level, chosen.log_format)
    life = worker.print_validation(chosen) if chosen.validate_only else worker.run(chosen)
    return uvloop.run(life)


if __name__ == "__main__":
    main()
