"""Short sessions of faults drawn at random: whatever happens, every id that the venue had is in the topic.

A session is repeated by its seed. More of them than a usual test run has time for:

    MARKETFEED_FAULT_SESSIONS=100 MARKETFEED_FAULT_SEED=1000 pytest workers/tests/test_workers_random_faults.py
"""

import os
import random
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from workers_line import Line, Worker, trade_ids

from marketfeed_devtools.waiting import until

FIRST_SEED = int(os.environ.get("MARKETFEED_FAULT_SEED", "1"))
SESSIONS = int(os.environ.get("MARKETFEED_FAULT_SESSIONS", "2"))
FAULTS_A_SESSION = 8
SYMBOLS = ["BTCUSDT", "ETHUSDT"]


class Session:
    """Simulator, broker, the current worker, and a random number generator."""

    def __init__(self, line: Line, seed: int) -> None:
        self.line = line
        self.chance = random.Random(seed)  # noqa: S311 - choice of faults
        self.worker = self._start()

    def _start(self) -> Worker:
        transport = self.chance.choice(["picows", "websockets"])
        worker = self.line.worker(
            WS_TRANSPORT=transport, BINANCE_API_KEY="k" * 64, WS_IDLE_TIMEOUT_SECONDS="2"
        )
        # A worker that is killed before its first checkpoint leaves no trace.
        until(
            lambda: (
                worker.metric("kafka_publish_success_total", topic=self.line.topics["progress"])
                >= len(SYMBOLS)
            ),
            "its first progress",
        )
        return worker

    def restart(self, number: int) -> None:
        self.worker.stop(number)
        self.worker = self._start()

    def frame_fault(self) -> None:
        kind = self.chance.choice(["drop", "duplicate", "reorder", "corrupt"])
        fields: dict[str, object] = {
            "count": self.chance.randint(1, 20),
            "chance": self.chance.choice([0.1, 0.5, 1]),
            "seed": self.chance.randint(0, 999),
            "streams": self.chance.choice([["*"], ["*@trade"], ["btcusdt@*"]]),
        }
        if kind == "reorder":
            fields["distance"] = self.chance.randint(1, 6)
        if kind == "corrupt":
            fields["how"] = self.chance.choice(
                ["truncated", "not_json", "not_utf8", "bad_price", "wrong_type"]
            )
        self.line.fault(kind, **fields)

    def connection_fault(self) -> None:
        faults: list[dict[str, object]] = [
            {"fault": "cut", "lose_frames": self.chance.randint(0, 300)},
            {"fault": "cut", "reset": True},
            {"fault": "close", "code": self.chance.choice([1000, 1001, 1008, 1012])},
            {"fault": "end_of_life", "notice_seconds": self.chance.choice([0, 1, 5])},
            {"fault": "server_shutdown", "close_after_seconds": self.chance.choice([1, 10])},
            {"fault": "stall", "seconds": self.chance.choice([1, 4])},
            {"fault": "half_open", "seconds": self.chance.choice([1, 5])},
        ]
        if self.chance.random() < 0.3:
            self.line.fault(
                "refuse", status=self.chance.choice([429, 500, 503]), retry_after_seconds=1, count=1
            )
        self.line.control("POST", "faults", self.chance.choice(faults))

    def rest_fault(self) -> None:
        faults: list[dict[str, object]] = [
            {"fault": "rest_delay", "seconds": 0.5, "count": 3},
            {"fault": "rest_error", "status": 500, "count": 2},
            {"fault": "rest_error", "status": 200, "html": True, "count": 2},
            {"fault": "rate_limit", "seconds": 1},
            {"fault": "ban", "seconds": 1},
        ]
        self.line.control("POST", "faults", self.chance.choice(faults))

    def market_fault(self) -> None:
        symbols = self.chance.choice([SYMBOLS, SYMBOLS[:1]])
        faults: list[dict[str, object]] = [
            {"fault": "skip_ids", "symbols": symbols, "count": self.chance.randint(1, 50)},
            {"fault": "halt", "symbols": symbols, "seconds": 1},
            {"fault": "burst", "factor": 20, "seconds": 0.5},
            {"fault": "clock_skew", "milliseconds": self.chance.randint(-3000, 3000)},
        ]
        self.line.control("POST", "faults", self.chance.choice(faults))

    def strike(self) -> None:
        """Inject a fault, or stop or kill the worker."""
        faults: list[Callable[[], None]] = [
            *[self.frame_fault, self.connection_fault] * 3,
            *[self.rest_fault, self.market_fault] * 2,
            lambda: self.restart(signal.SIGTERM),
            lambda: self.restart(signal.SIGKILL),
        ]
        self.chance.choice(faults)()

    def read_on(self, trades: int) -> None:
        """Wait for that many more trades."""
        before = self._read()
        until(lambda: self._read() >= before + trades, f"{trades} more trades: {self.worker.status()}", 90)

    def settle(self) -> None:
        """Remove the remaining faults and wait until nothing is missing."""
        self.line.control("DELETE", "faults")
        self.read_on(100)
        until(
            lambda: not any(each.missing for each in self.worker.status().symbols.values()),
            f"nothing to be missing: {self.worker.status()}",
            90,
        )

    def _read(self) -> int:
        return sum(each.trades for each in self.worker.status().symbols.values())


@pytest.mark.parametrize("seed", range(FIRST_SEED, FIRST_SEED + SESSIONS))
def test_random_faults_every_id_is_published(tmp_path: Path, seed: int) -> None:
    with Line(tmp_path) as line:
        session = Session(line, seed)
        for _ in range(FAULTS_A_SESSION):
            session.strike()
            session.read_on(session.chance.randint(20, 120))
        session.settle()
        assert session.worker.stop() == 0

        ledger = line.ledger()
        unresolved = "unresolved" in line.gap_states()
        for symbol, trades in line.trades().items():
            ids = list(
                dict.fromkeys(trade_ids(trades))
            )  # the last second of a killed worker may be duplicated
            absent = {n for first, last in ledger[symbol]["absent_trade_ids"] for n in range(first, last + 1)}
            expected = [n for n in range(min(ids), max(ids) + 1) if n not in absent]
            assert sorted(ids) == expected, f"{symbol}: missing {sorted(set(expected) - set(ids))[:10]}"
            assert unresolved or ids == expected, f"{symbol}: not in order"
        assert {gap.state for gap in line.gaps()} <= {"backfilled", "absent"}
