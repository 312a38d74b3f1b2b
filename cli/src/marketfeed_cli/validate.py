"""Command ``marketfeed validate``: validate configuration and symbols with the worker's own check."""

import os
import sys
from collections.abc import Mapping
from typing import NoReturn


def validate(symbols: str, environment: Mapping[str, str]) -> NoReturn:
    """Replace the process by ``marketfeed-worker`` with VALIDATE_ONLY; it prints a table and exits with 0, 1 or 2."""
    variables = {**environment, "VALIDATE_ONLY": "true"}
    # The check does not connect to Kafka, but the setting is required.
    variables.setdefault("KAFKA_BROKER", "localhost:9092")
    if symbols:
        variables["BINANCE_SYMBOLS"] = symbols
    sys.stdout.flush()
    os.execve(sys.executable, [sys.executable, "-m", "marketfeed_workers"], variables)  # noqa: S606 - no shell
