"""What the integration tests share: waiting, reading tables, a consumer process."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from psycopg import sql


def until(condition: Callable[[], object], what: str, seconds: float = 30.0) -> None:
    """Wait for `condition`, looking often; fail with `what` when it does not come."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"waited {seconds:g} s for {what}")
        time.sleep(0.02)


def rows(url: str, query: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(url) as connection:
        return connection.execute(query).fetchall()


def stored(url: str, table: str) -> int:
    with psycopg.connect(url) as connection:
        row = connection.execute(sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(table))).fetchone()
    assert row is not None
    return int(row[0])


class Consumer:
    """A running `marketfeed-consumer`."""

    def __init__(self, environment: dict[str, str], folder: Path) -> None:
        self.log = folder / f"{uuid4().hex}.log"
        self._port_file = folder / f"{uuid4().hex}.port"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "marketfeed_consumers"],
                env={**os.environ, **environment, "METRICS_PORT_FILE": str(self._port_file)},
                stderr=log,
                stdout=log,
            )
        until(lambda: self._port_file.exists() or self.process.poll() is not None, "the metrics port")

    def get(self, path: str) -> tuple[int, str]:
        url = f"http://127.0.0.1:{self._port_file.read_text().strip()}{path}"
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def status(self) -> dict[str, Any]:
        status: dict[str, Any] = json.loads(self.get("/status")[1])
        return status

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(30)
