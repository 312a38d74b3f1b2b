"""Two found plans of simtest per run, selected by date, on the real worker process, the simulator and a broker.

Their faults are the simulator's, so the venue's part of a plan is used unchanged, only sooner; restarts are those of
the process. At the end the records in Kafka are compared with the simulator's ledger.
"""

import asyncio
import datetime
import json
import os
import random
import urllib.request
from pathlib import Path
from typing import Any, Final

import msgspec
from integration_kafka import read_topic
from integration_pipeline import Pipeline, worker_status

from marketfeed_cli import services
from marketfeed_cli.process import Part, Parts
from marketfeed_devtools.waiting import until_async
from marketfeed_simtest.battery import FOUND
from marketfeed_simtest.faults import EachFault, Restart, begins
from marketfeed_simtest.plan import Plan
from marketfeed_wire import Gap, Trade, decode_gap, decode_trade

REPLAYED: Final = (
    "A5 many gaps that REST cannot fill delay a fresh one",
    "A5 an odd row",
    "F1 part of an unresolved gap is filled",
    "F7 a start while a symbol is halted",
)
"""Plans whose faults the simulator and a restart can reproduce, and that end within seconds when they start sooner."""
ODD_PRICE: Final = "1E-8"
"""Price of a permanently invalid row in the simulator's REST responses."""
FAULTS_SECONDS: Final = 4.0
"""Seconds within which the last fault of a plan begins; none lasts longer."""


def drawn_today() -> list[str]:
    return random.Random(str(datetime.datetime.now(tz=datetime.UTC).date())).sample(REPLAYED, 2)  # noqa: S311


class Replay:
    """A plan that runs in real time."""

    def __init__(self, plan: Plan, parts: Parts, folder: Path, broker: str, prefix: str) -> None:
        self._plan = plan
        self._line = Pipeline(parts, folder, broker, "", prefix)
        given = {
            name: value for name, value in plan.environment().items() if value and name != "KAFKA_BROKER"
        }
        self._line.environment |= {**given, "GAP_HOLD_SECONDS": "1"}
        self._broker = broker

    async def run(self) -> None:
        """Run the venue, the worker and the faults, then compare."""
        rates = [f"--rates={name}={trades},{quotes}" for name, (trades, quotes) in self._plan.rates.items()]
        symbols = ",".join(self._plan.rates)
        await self._line.venue(
            "--venue",
            self._plan.venue,
            "generate",
            "--symbols",
            symbols,
            *rates,
            "--seed",
            str(self._plan.seed),
        )
        worker, url = await self._line.worker()
        await until_async(lambda: worker_status(url).ready, "the worker to be ready")
        for fault, seconds in self._sooner():
            await asyncio.sleep(seconds)
            if isinstance(fault, Restart):
                assert await self._line.stop(worker) == 0
                worker, url = await self._line.worker()
            else:
                fields = {
                    name: value for name, value in msgspec.to_builtins(fault).items() if value is not None
                }
                self._line.fault(**{**fields, "count": None} if fields.get("count", 0) is None else fields)
        await asyncio.sleep(FAULTS_SECONDS)
        await self._end(worker, url)

    def _sooner(self) -> list[tuple[EachFault, float]]:
        """Return the plan's faults, each with the seconds since the previous one."""
        faults = self._plan.faults
        pace = FAULTS_SECONDS / max(begins(faults[-1]) - begins(faults[0]), FAULTS_SECONDS)
        at, sooner = begins(faults[0]), []
        for fault in faults:
            wait, at = (begins(fault) - at) * pace, begins(fault)
            changes: dict[str, Any] = {"after_seconds": None}
            lasts: float | None = getattr(fault, "seconds", None)
            if lasts is not None:
                changes["seconds"] = min(lasts, FAULTS_SECONDS)
            sooner.append((msgspec.structs.replace(fault, **changes), wait))
        return sooner

    async def _end(self, worker: Part, url: str) -> None:
        """End all faults: gaps are backfilled or reported within seconds; compare with the ledger."""
        self._heal()
        newest = {name: book["last_trade_id"] for name, book in self._line.ledger()["symbols"].items()}
        await until_async(lambda: self._is_beyond(url, newest), "trades without faults")
        self._line.fault("halt", symbols=list(self._plan.rates))
        await until_async(lambda: self._is_settled(url), f"all trades of the venue: {worker_status(url)}")
        assert await self._line.stop(worker) == 0
        trades, gaps = self._stored()
        for symbol, book in self._line.ledger()["symbols"].items():
            self._judge(symbol, book, trades.get(symbol, []), [gap for gap in gaps if gap.symbol == symbol])

    def _heal(self) -> None:
        address = f"{self._line.simulator_url}/control/faults"
        request = urllib.request.Request(address, method="DELETE")  # noqa: S310 - our own simulator
        with urllib.request.urlopen(request, timeout=10):  # noqa: S310 - our own simulator
            pass

    @staticmethod
    def _is_beyond(url: str, newest: dict[str, int]) -> bool:
        symbols = worker_status(url).symbols
        return all((symbols[name].last_trade_id or 0) > number for name, number in newest.items())

    def _is_settled(self, url: str) -> bool:
        """Return whether everything is acknowledged, and nothing is missing except recorded gaps."""
        status, books = worker_status(url), self._line.ledger()["symbols"]
        _, gaps = self._stored()
        reported = dict.fromkeys(books, 0)
        for gap in gaps:
            reported[gap.symbol] += sum(last - first + 1 for first, last in gap.missing)
        return not status.pending and all(
            status.symbols[symbol].last_trade_id == book["last_trade_id"]
            and status.symbols[symbol].missing == reported[symbol]
            for symbol, book in books.items()
        )

    def _stored(self) -> tuple[dict[str, list[Trade]], list[Gap]]:
        """Return the trades by symbol, and the newest record of each gap."""
        trades: dict[str, list[Trade]] = {}
        for _, value in read_topic(self._broker, self._line.topics["MARKET_TRADES_TOPIC"]):
            trade = decode_trade(value)
            trades.setdefault(trade.symbol, []).append(trade)
        newest = dict(read_topic(self._broker, self._line.topics["MARKET_GAPS_TOPIC"]))
        return trades, [decode_gap(value) for value in newest.values()]

    def _judge(self, symbol: str, book: dict[str, Any], stored: list[Trade], gaps: list[Gap]) -> None:
        ids = [trade.trade_id for trade in stored]
        assert len(ids) == len(set(ids)), f"{symbol}: trades are published twice"
        absent = {number for first, last in book["absent_trade_ids"] for number in range(first, last + 1)}
        reported = {
            number for gap in gaps for first, last in gap.missing for number in range(first, last + 1)
        }
        expected = set(range(min(ids), book["last_trade_id"] + 1)) - absent
        assert set(ids) == expected - reported, f"{symbol}: neither stored nor reported missing, or both"
        rows = self._rows(symbol, min(ids))
        for trade in stored:
            price, *others = rows[trade.trade_id]
            assert trade.price == price or price == ODD_PRICE
            assert [trade.qty, trade.buyer_is_maker, trade.trade_time_us // 1000] == others

    def _rows(self, symbol: str, first: int) -> dict[int, tuple[str, str, bool, int]]:
        """Return id -> price, quantity, side, time in milliseconds, as the simulator's REST API returns them."""
        rows: dict[int, tuple[str, str, bool, int]] = {}
        while True:
            query = f"symbol={symbol}&fromId={first}&limit=1000"
            request = urllib.request.Request(  # noqa: S310 - our own simulator
                f"{self._line.simulator_url}/api/v3/historicalTrades?{query}", headers={"X-MBX-APIKEY": "k"}
            )
            with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310 - our own simulator
                page = json.loads(answer.read())
            rows |= {row["id"]: (row["price"], row["qty"], row["isBuyerMaker"], row["time"]) for row in page}
            if len(page) < 1000:
                return rows
            first = page[-1]["id"] + 1


async def test_found_plans_hold_on_the_real_worker(tmp_path: Path, parts: Parts) -> None:
    address_file = tmp_path / "broker"
    names = drawn_today()
    plans = {found.name: found.plan for found in FOUND}
    topics: dict[str, int] = {}
    for number, _ in enumerate(names):
        topics |= dict.fromkeys(Pipeline(parts, tmp_path, "", "", f"plan{number}").topics.values(), 2)
    parts.start(services.embedded_broker({"PATH": os.environ["PATH"]}, address_file, topics))
    await until_async(address_file.exists, "the broker")
    broker = address_file.read_text().strip()
    async with asyncio.TaskGroup() as group:
        for number, name in enumerate(names):
            folder = tmp_path / str(number)
            folder.mkdir()
            replay = Replay(plans[name], parts, folder, broker, f"plan{number}")
            group.create_task(replay.run(), name=name)
