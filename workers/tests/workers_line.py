"""A complete setup for tests: simulator, broker and worker processes, all real and stopped by their ids."""

import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections import Counter, defaultdict
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec

from marketfeed_devtools.mock_broker import Broker
from marketfeed_devtools.waiting import until
from marketfeed_wire import Gap, Trade, decode_book_ticker, decode_gap, decode_trade
from marketfeed_wire.status import WorkerStatus


class Process:
    """A command with its log and its port in files."""

    def __init__(self, folder: Path, name: str, command: list[str], environment: dict[str, str]) -> None:
        self.name = name
        self.log = folder / f"{name}.log"
        self._port_file = folder / f"{name}.port"
        self._port_file.unlink(missing_ok=True)
        inherited = {key: os.environ[key] for key in ("PATH", "HOME") if key in os.environ}
        with self.log.open("a") as log:
            self.process = subprocess.Popen(
                [str(part).replace("{port_file}", str(self._port_file)) for part in command],
                env={**inherited, **environment, "METRICS_PORT_FILE": str(self._port_file)},
                stdout=log,
                stderr=log,
            )

    def port(self) -> int:
        until(lambda: self._port_file.exists() or self.process.poll() is not None, f"{self.name}'s port")
        assert self._port_file.exists(), self.log.read_text()
        return int(self._port_file.read_text())

    def stop(self, number: int = signal.SIGTERM, seconds: float = 30) -> int:
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(seconds)


class Worker(Process):
    """A worker process."""

    def status(self) -> WorkerStatus:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port()}/status", timeout=5) as answer:
            return msgspec.json.decode(answer.read(), type=WorkerStatus)

    def metrics(self) -> dict[str, float]:
        """Return each sample by its full name including labels."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port()}/metrics", timeout=5) as answer:
            lines = answer.read().decode().splitlines()
        return {
            name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines if line[0] != "#")
        }

    def metric(self, name: str, **labels: str) -> float:
        """Return the sum of the samples of this name whose labels include the given ones."""
        needed = [f'{key}="{value}"' for key, value in labels.items()]
        return sum(
            value
            for sample, value in self.metrics().items()
            if sample.split("{")[0] == name and all(each in sample for each in needed)
        )

    def ready(self) -> bool:
        try:
            return self.status().ready
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            return False


class Line:
    """Simulator, broker, workers; use it in a ``with`` block."""

    def __init__(self, folder: Path, *market: str, venue: str = "binance_us") -> None:
        self._folder = folder
        self._market = market or ("generate", "--trade-rate", "150", "--quote-rate", "50")
        self._venue = venue
        self._broker = Broker()
        self._workers: list[Worker] = []

    def __enter__(self) -> Self:
        self._broker.__enter__()
        command = [sys.executable, "-m", "marketfeed_simulator", "--port-file", "{port_file}"]
        self._simulator = Process(
            self._folder, "simulator", [*command, "--venue", self._venue, *self._market], {}
        )
        self.url = f"127.0.0.1:{self._simulator.port()}"
        self.reset()
        return self

    def reset(self) -> None:
        """Reset for the next test: no worker, no fault, empty topics, counts from zero."""
        for worker in self._workers:
            worker.stop(signal.SIGKILL)
        self._broker.up()
        self.control("DELETE", "faults")
        self.topics = {
            name: self._broker.new_topic(name) for name in ("trades", "quotes", "progress", "gaps")
        }
        self._counted_before = self.control("GET", "ledger")

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        for worker in self._workers:
            worker.stop(signal.SIGKILL)
        self._simulator.stop(signal.SIGKILL)
        self._broker.__exit__()

    def worker(self, *, wait: bool = True, **variables: str) -> Worker:
        """Start a worker with two symbols and default settings."""
        command = [sys.executable, "-m", "marketfeed_workers"]
        environment = self.environment(**variables)
        worker = Worker(self._folder, f"worker-{len(self._workers)}", command, environment)
        self._workers.append(worker)
        if wait:
            until(worker.ready, f"the worker to be ready; see {worker.log.read_text()}")
        return worker

    @property
    def broker_address(self) -> str:
        return self._broker.address

    def environment(self, **variables: str) -> dict[str, str]:
        """Return the environment of a worker."""
        return {
            "VENUE": self._venue,
            "BINANCE_SYMBOLS": "BTCUSDT,ETHUSDT",
            "BINANCE_WS_BASE": f"ws://{self.url}",
            "BINANCE_REST_BASE": f"http://{self.url}",
            "KAFKA_BROKER": self._broker.address,
            "MARKET_TRADES_TOPIC": self.topics["trades"],
            "MARKET_BOOK_TOPIC": self.topics["quotes"],
            "MARKET_PROGRESS_TOPIC": self.topics["progress"],
            "MARKET_GAPS_TOPIC": self.topics["gaps"],
            "METRICS_HOST": "127.0.0.1",
            "METRICS_PORT": "0",
            "PROGRESS_INTERVAL_SECONDS": "0.2",
            **variables,
        }

    def control(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        request = urllib.request.Request(
            f"http://{self.url}/control/{path}",
            method=method,
            data=json.dumps(body).encode() if body is not None else None,
        )
        with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310 - our own simulator
            return json.loads(answer.read() or b"null")

    def fault(self, fault: str, **fields: Any) -> Any:
        return self.control("POST", "faults", {"fault": fault, **fields})

    def ledger(self) -> dict[str, Any]:
        return dict(self.control("GET", "ledger")["symbols"])

    def traded(self, symbol: str) -> int:
        """Return the number of trades of a symbol that the venue has sent."""
        return int(self.ledger().get(symbol, {}).get("trades", 0))

    def connections(self) -> dict[str, int]:
        """Return the number of accepted and refused connections since the last reset."""
        before, now = self._counted_before["connections"], self.control("GET", "ledger")["connections"]
        return {name: now[name] - before[name] for name in ("accepted", "refused")}

    def requests(self) -> dict[tuple[str, str], int]:
        """Return the number of REST responses by (endpoint, status) since the last reset."""

        def flat(ledger: dict[str, Any]) -> Counter[tuple[str, str]]:
            answered: dict[str, dict[str, int]] = ledger["requests"]
            return Counter(
                {(endpoint, status): n for endpoint, each in answered.items() for status, n in each.items()}
            )

        return dict(flat(self.control("GET", "ledger")) - flat(self._counted_before))

    def trades(self) -> dict[str, list[Trade]]:
        """Return the trades in the topic by symbol, in order."""
        stored: dict[str, list[Trade]] = defaultdict(list)
        for key, value in self._broker.read(self.topics["trades"]):
            stored[key.decode()].append(decode_trade(value))
        return stored

    def update_ids(self) -> dict[str, list[int]]:
        """Return the quotes' update ids in the topic by symbol, in order."""
        stored: dict[str, list[int]] = defaultdict(list)
        for key, value in self._broker.read(self.topics["quotes"]):
            stored[key.decode()].append(decode_book_ticker(value).update_id)
        return stored

    def gaps(self) -> list[Gap]:
        """Return the newest record of each gap."""
        newest = {key: decode_gap(value) for key, value in self._broker.read(self.topics["gaps"])}
        return list(newest.values())

    def gap_states(self) -> set[str]:
        """Return every state of any gap so far."""
        return {decode_gap(value).state for _, value in self._broker.read(self.topics["gaps"])}

    def broker_freeze(self) -> None:
        self._broker.freeze()

    def broker_thaw(self) -> None:
        self._broker.thaw()

    def broker_down(self) -> None:
        self._broker.down()

    def broker_up(self) -> None:
        self._broker.up()


def trade_ids(trades: list[Trade]) -> list[int]:
    return [trade.trade_id for trade in trades]


def assert_complete(line: Line, *, in_order: bool = True) -> None:
    """Assert that every id of the venue from the first one in the topic on is there, in order and once."""
    ledger = line.ledger()
    for symbol, trades in line.trades().items():
        ids = trade_ids(trades)
        absent = {n for first, last in ledger[symbol]["absent_trade_ids"] for n in range(first, last + 1)}
        expected = [n for n in range(min(ids), max(ids) + 1) if n not in absent]
        assert sorted(set(ids)) == expected, f"{symbol}: {sorted(set(expected) - set(ids))[:10]} are missing"
        assert len(ids) == len(set(ids)), f"{symbol}: some trades were published twice"
        if in_order:
            assert ids == sorted(ids), f"{symbol}: not in order"
