"""A compose stack for one test: unique name, ports and volumes; it is removed when the test ends."""

import functools
import json
import os
import secrets
import signal
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, TypeVar

import psycopg

from marketfeed_devtools.ports import free_ports
from marketfeed_devtools.waiting import until

ROOT: Final = Path(__file__).resolve().parents[3]
sys.path.append(str(ROOT / "tests" / "e2e" / "images"))

import build_images  # noqa: E402 - found through the line above
import docker_engine  # noqa: E402
from images_recipes import BASE, RECIPES  # noqa: E402

T = TypeVar("T")
SYMBOLS: Final = ("BTCUSDT", "ETHUSDT", "SOLUSDT", "ADAUSDT", "DOGEUSDT")
UP_SECONDS: Final = 900.0
"""Time limit of `up` on a slow machine; it builds the project's images, and waits for data."""
_PORTS: Final = (
    "KAFKA_PORT", "POSTGRES_PORT", "WORKER_PORT", "CONSUMER_TRADES_PORT", "CONSUMER_BOOK_PORT", "SIMULATOR_PORT",
    "PROMETHEUS_PORT", "GRAFANA_PORT",
)  # fmt: skip


# Each poll queries Docker, and a slow machine starts a stack slowly.
eventually = functools.partial(until, seconds=180.0, every=0.5)


def local_images(*, zookeeper: bool) -> dict[str, Any]:
    """Return the override that replaces pulled images by images built here; missing ones are built first.

    Grafana has no such image: it is assigned to a profile that is never enabled.
    """
    kafka = build_images.provide("kafka-zookeeper" if zookeeper else "kafka")
    services: dict[str, Any] = {name: {"image": kafka} for name in ("kafka", "topics")}
    if zookeeper:
        services["zookeeper"] = {"image": kafka}
    for name in ("postgres", "prometheus"):
        services[name] = {"image": build_images.provide(name)}
    build_images.provide("base")
    build_images.provide("builder")
    return {**services, "grafana": {"profiles": ["pulled"]}}


class Stack:
    """One stack on the simulator profile; use it in a ``with`` block, which removes it with its volumes.

    The simulated market begins when every stream has a subscriber, so that every trade in its ledger could be received.
    """

    def __init__(self, folder: Path, *, zookeeper: bool = False) -> None:
        self._folder = folder
        command, variables = docker_engine.compose()
        self._docker = command[0]
        self.name = f"marketfeed-test-{secrets.token_hex(3)}"
        override = folder / "override.json"
        services = local_images(zookeeper=zookeeper)
        services["simulator"] = {"command": self._market()}
        override.write_text(json.dumps({"services": services}))
        files = [ROOT / "compose.yaml", *([ROOT / "compose.zookeeper.yaml"] if zookeeper else []), override]
        self._command = [*command, "--project-name", self.name, "--project-directory", str(ROOT)]
        self._command += [word for file in files for word in ("--file", str(file))]
        self.ports = dict(zip(_PORTS, free_ports(len(_PORTS)), strict=True))
        self.environment: Mapping[str, str] = {
            **os.environ,
            **variables,
            **{name: str(port) for name, port in self.ports.items()},
            "COMPOSE_PROFILES": "simulator",
            "COMPOSE_MENU": "false",
            "BASE_IMAGE": BASE,
            "BUILD_IMAGE": RECIPES["builder"].reference,
        }

    @staticmethod
    def _market() -> list[str]:
        rates = ["--trade-rate=10", "--quote-rate=20", "--keep-trades=1000000", "--wait-for-subscribers"]
        return ["--host=::", "--port=9443", "generate", f"--symbols={','.join(SYMBOLS)}", *rates]

    def __enter__(self) -> Self:
        try:
            self.up("--build")
        except BaseException:
            self._end(failed=True)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None
    ) -> None:
        self._end(failed=kind is not None)

    def _end(self, *, failed: bool) -> None:
        if failed:
            self.collect()
        self.compose("down", "--volumes", "--remove-orphans", "--timeout", "10", check=False)

    def up(self, *options: str) -> None:
        """Run `docker compose up -d --wait`; return when data flows."""
        self.compose("up", "--detach", "--wait", "--quiet-pull", *options, timeout=UP_SECONDS)

    def compose(self, *arguments: str, check: bool = True, timeout: float = 300.0) -> str:
        """Run `docker compose` and return its stdout.

        Raises:
            AssertionError: its exit code is not 0, and `check`.
        """
        done = subprocess.run(
            [*self._command, *arguments], env=self.environment, capture_output=True, text=True, timeout=timeout,
            check=False,
        )  # fmt: skip
        tail = "\n".join(done.stderr.splitlines()[-30:])
        assert not check or done.returncode == 0, (
            f"docker compose {' '.join(arguments)} ended with {done.returncode}:\n{tail}"
        )
        return done.stdout

    def docker(self, *arguments: str) -> str:
        """Run `docker` and return its output."""
        return subprocess.run(
            [self._docker, *arguments], capture_output=True, text=True, check=True, timeout=120
        ).stdout.strip()

    def execute(self, service: str, *command: str) -> str:
        """Run a command in a running container."""
        return self.compose("exec", "-T", service, *command)

    def sql(self, query: str) -> list[tuple[Any, ...]]:
        """Return the rows of a query, run at the database's published port."""
        address = f"postgresql://marketfeed:marketfeed@127.0.0.1:{self.ports['POSTGRES_PORT']}/marketfeed"
        with psycopg.connect(address, connect_timeout=30) as connection:
            return connection.execute(query.encode()).fetchall()

    def get(self, port: str, path: str, body: object = None) -> Any:
        """Return the JSON response of a published port."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{self.ports[port]}{path}", data=data)
        with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310 - our own stack
            return json.load(answer)

    def container(self, service: str) -> dict[str, Any]:
        """Return Docker's description of a service's container."""
        identity = self.compose("ps", "--all", "--quiet", service).strip()
        found: dict[str, Any] = json.loads(self.docker("inspect", identity))[0]
        return found

    def is_healthy(self, service: str) -> bool:
        """Return whether its container runs and its health check passes."""
        state = self.container(service)["State"]
        return bool(state["Status"] == "running" and state["Health"]["Status"] == "healthy")

    def crash(self, service: str) -> None:
        """Send SIGKILL to a container's process: its restart policy must restart it."""
        before = self.container(service)
        os.kill(before["State"]["Pid"], signal.SIGKILL)
        eventually(
            lambda: self.container(service)["State"]["StartedAt"] != before["State"]["StartedAt"],
            f"{service} restarted",
        )

    def stored(self) -> dict[str, tuple[int, int, int]]:
        """Return symbol -> trades, first and last trade id in the database."""
        rows = self.sql("SELECT symbol, count(*), min(trade_id), max(trade_id) FROM trades GROUP BY symbol")
        return {symbol: (int(count), int(first), int(last)) for symbol, count, first, last in rows}

    def sent(self) -> dict[str, tuple[int, int, int]]:
        """Return the same from the simulator's ledger."""
        symbols = self.get("SIMULATOR_PORT", "/control/ledger")["symbols"]
        return {
            symbol: (market["trades"], market["first_trade_id"], market["last_trade_id"])
            for symbol, market in symbols.items()
        }

    def trades_stored(self) -> int:
        """Return the number of rows in the table of trades."""
        return int(self.sql("SELECT count(*) FROM trades")[0][0])

    def collect(self) -> None:
        """Write logs and states of all containers into a folder, and print its path."""
        folder = self._folder / "evidence"
        folder.mkdir(exist_ok=True)
        (folder / "logs.txt").write_text(self.compose("logs", "--no-color", "--timestamps", check=False))
        (folder / "ps.txt").write_text(self.compose("ps", "--all", check=False))
        identities = self.compose("ps", "--all", "--quiet", check=False).split()
        if identities:
            states = [
                {key: each[key] for key in ("Name", "State", "RestartCount")}
                for each in json.loads(self.docker("inspect", *identities))
            ]
            (folder / "states.json").write_text(json.dumps(states, indent=1))
        for port in ("WORKER_PORT", "CONSUMER_TRADES_PORT", "CONSUMER_BOOK_PORT"):
            try:
                answer = json.dumps(self.get(port, "/status"), indent=1)
            except (OSError, urllib.error.URLError) as error:
                answer = str(error)
            (folder / f"{port.lower().removesuffix('_port')}-status.json").write_text(answer)
        print(f"logs and states of the containers are in {folder}", flush=True)
