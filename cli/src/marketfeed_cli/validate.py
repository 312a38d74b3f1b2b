"""``marketfeed validate``: would the worker accept these settings and symbols? Runs the worker's own check."""

import os
import sys
from collections.abc import Mapping
from typing import NoReturn


def validate(symbols: str, environment: Mapping[str, str]) -> NoReturn:
    """Become ``marketfeed-worker`` with VALIDATE_ONLY; it prints a table and exits 0, 1 or 2."""
    asked = {**environment, "VALIDATE_ONLY": "true"}
    # The check never speaks to Kafka, so its address must not be demanded of somebody who only checks symbols.
    asked.setdefault("KAFKA_BROKER", "localhost:9092")
    if symbols:
        asked["BINANCE_SYMBOLS"] = symbols
    sys.stdout.flush()
    os.execve(sys.executable, [sys.executable, "-m", "marketfeed_workers"], asked)  # noqa: S606 - no shell
