"""Mutation tests of the oracle: one-line defects in a copy of the worker, one at a time; each must be detected.

A mutant is a replacement of text, so that it survives when the code around it moves; a test checks that each of them
still applies. Mutants that no session can detect have a reason, and stay in the list.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import marketfeed_consumers
import marketfeed_workers

SOURCES: Final = {
    package.__name__: Path(package.__file__ or "").parent
    for package in (marketfeed_workers, marketfeed_consumers)
}
"""Package -> its folder."""


@dataclass(frozen=True, slots=True)
class Mutant:
    """A defect.

    Attributes:
        name: description; begins with the id of a former defect that it reintroduces, if any.
        file: path below the package.
        old, new: the text that is replaced everywhere in the file, and its replacement.
        survives: reason why no session can detect it; "" where one must.
        seed: first seed, from 1 or 10**12 on, whose session detected it; 0 where a fixed session
            does.
        package: package of the file.
        with_postgres: whether the sessions run over PostgreSQL, for a defect in SQL.
    """

    name: str
    file: str
    old: str
    new: str
    survives: str = ""
    package: str = "marketfeed_workers"
    seed: int = 0
    with_postgres: bool = False


MUTANTS: Final[tuple[Mutant, ...]] = (
    Mutant(
        "a start loses the missing ids",
        "stream/symbol_flow.py",
        "self.sequence.resume_after(trade_id, unresolved)",
        "self.sequence.resume_after(trade_id, [])",
    ),
    Mutant(
        "a symbol begins without a checkpoint",
        "stream/first_trades.py",
        "self._parts.contiguous and flow.sequence.expected is None and bool(",
        "False and bool(",
    ),
    Mutant(
        "unresolved gaps are dropped",
        "stream/reorder_buffer.py",
        "self.unresolved = merged([*self.unresolved, *self._gaps])",
        "self.unresolved = merged([*self.unresolved])",
    ),
    Mutant(
        "the checkpoint does not wait for gap records",
        "stream/gap_publisher.py",
        "return min([acknowledged_id, *(first_id - 1 for first_id in unacknowledged)])",
        "return acknowledged_id",
    ),
    Mutant(
        "the checkpoint does not wait for acknowledgements",
        "kafka/checkpoints.py",
        "trade_id = self._pipeline.gaps.checkpoint(symbol, acknowledged_id)",
        "trade_id = self._pipeline.flows[symbol].sequence.expected - 1",
    ),
    Mutant(
        "a gap is filled before Kafka has its trades",
        "stream/gaps.py",
        "*part_of(unacknowledged, self.ids), ",
        "",
    ),
    Mutant(
        "unpublished ids do not count as missing",
        "stream/gaps.py",
        ", *sequence.unpublished(self.ids)]",
        "]",
    ),
    Mutant(
        "the id after the last row of a page is absent, too",
        "venues/binance_spot/rows.py",
        "    return Proof(hull, absent)\n\n\ndef needed_part",
        "    return Proof(hull, [*absent, IdRange(newest + 1, newest + 1)])\n\n\ndef needed_part",
    ),
    Mutant(
        "a 429 is ignored",
        "venues/binance_spot/rest_client.py",
        "self.budget.block(error)",
        "pass",
    ),
    Mutant(
        "gap records have the wall clock's time",
        "stream/gaps.py",
        "updated_time_us=max(now_us, self.record_time_us + 1),",
        "updated_time_us=now_us,",
    ),
    Mutant(
        "a hold never ends",
        "backfill.py",
        "if gaps and now - min(gaps.values()) >= self._hold_seconds:",
        "if False:",
    ),
    Mutant(
        "a hold ends after a tenth of its time",
        "backfill.py",
        "now - min(gaps.values()) >= self._hold_seconds",
        "now - min(gaps.values()) >= self._hold_seconds / 10",
    ),
    Mutant(
        "BACKFILL_FROM is a minute late",
        "startup.py",
        "parse_time_us(start))",
        "parse_time_us(start) + 60_000_000)",
    ),
    Mutant(
        "sockets are not read again after a pause",
        "stream/back_pressure.py",
        "            socket.resume_reading()\n",
        "            pass\n",
        survives="the detector of stalled streams replaces the connection, within its own bound",
    ),
    Mutant(
        "the pipeline never leaves its pause",
        "stream/pipeline.py",
        "if self.paused and self._publisher.has_room and not self.resets.holds_too_many():",
        "if False:",
    ),
    Mutant(
        "an earlier trade is published again",
        "stream/reorder_buffer.py",
        "        self.duplicates += 1\n        return _NOTHING\n\n    def _add_tombstones",
        "        self.duplicates += 1\n        return Arrival([trade], None)\n\n    def _add_tombstones",
        survives="unreachable: callers check `is_known` first, and a trade that passes is not an "
        "earlier one, or is late or absent, which the lines above handle",
    ),
    Mutant(
        "a duplicate is published again",
        "stream/trade_publisher.py",
        "            if same_trade(first, trade):\n",
        "            if False:\n",
    ),
    Mutant(
        "buffered trades are flushed in another order",
        "stream/reorder_buffer.py",
        "for trade_id in sorted(self.buffered)]",
        "for trade_id in sorted(self.buffered, reverse=True)]",
    ),
    Mutant(
        "an older quote is published, too",
        "stream/quote_publisher.py",
        "if quote.update_id > flow.last_update_id:",
        "if quote.update_id != flow.last_update_id:",
    ),
    Mutant(
        "quotes stop after a thousand",
        "stream/quote_publisher.py",
        "            flow.quotes += 1\n",
        "            flow.quotes += 1\n            if flow.quotes > 1000:\n                continue\n",
    ),
    Mutant(
        "a rejection does not end the process",
        "worker.py",
        "while not stop.is_set() and not self._publisher.fatal_error:",
        "while not stop.is_set():",
    ),
    Mutant(
        "a stop does not wait for acknowledgements",
        "worker.py",
        "        left = publisher.flush(max(0.0, deadline - monotonic()))\n",
        "        left = 0\n",
    ),
    Mutant(
        "a stop does not publish the checkpoint",
        "worker.py",
        "self._checkpoints.publish(is_final=True)",
        "pass",
    ),
    Mutant(
        "the event time replaces the trade's time",
        "venues/binance_spot/mapper.py",
        "trade.T * time_unit_us,",
        "trade.E * time_unit_us,",
    ),
    Mutant(
        "a backfilled trade has the other side",
        "venues/binance_spot/rest.py",
        "row.qty, row.is_buyer_maker,",
        "row.qty, not row.is_buyer_maker,",
    ),
    Mutant(
        "a backfilled price loses its last digits",
        "venues/binance_spot/rest.py",
        "self._venue, symbol, row.id, row.price, ",
        "self._venue, symbol, row.id, row.price[:-2], ",
    ),
    Mutant(
        "acknowledged counts one too many",
        "kafka/delivery_report.py",
        "self._stream.acknowledged += size - ",
        "self._stream.acknowledged += 1 + size - ",
    ),
    Mutant(
        "received counts reads",
        "stream/pipeline.py",
        "counters.received += len(trades)",
        "counters.received += 1",
    ),
    Mutant(
        "the checkpoint passes a rejected message",
        "kafka/publisher.py",
        "refused and key_for(split_series_key(symbol)[0]) in refused",
        "False",
    ),
    Mutant(
        "delivery reports are kept without limit",
        "kafka/publisher.py",
        "self._in_flight_reads.pop(receipt)",
        "self._in_flight_reads[receipt]",
    ),
    Mutant(
        "a gap is not backfilled",
        "stream/gap_publisher.py",
        "            flow.new_gaps = 0\n            self.on_gap(flow.symbol)\n",
        "            flow.new_gaps = 0\n",
    ),
    Mutant(
        "ready whatever the streams do",
        "status.py",
        "return self._streams.not_ready()",
        'return ""',
    ),
    Mutant(
        "never ready because of the streams",
        "status.py",
        "return self._streams.not_ready()",
        'return self._streams.not_ready() or "streams"',
    ),
    Mutant(
        "stalled streams are not replaced",
        "stall_detector.py",
        "if self._is_broken(stream) and not was_broken:",
        "if False:",
        survives="trades are backfilled and readiness is correct meanwhile; timely replacement "
        "is covered by the process tests of stalled streams",
    ),
    Mutant(
        "an unresponsive peer is not dropped",
        "connection/session.py",
        "                socket.abort()\n                return\n\n    async def _send_keepalives",
        "                return\n\n    async def _send_keepalives",
        survives="the detector of stalled streams replaces the connection as well, within its own bound",
    ),
    Mutant(
        "a frame of the wrong kind ends the process",
        "stream/pipeline.py",
        "            self._counters.failures[error.reason] += 1\n",
        "            raise error\n",
    ),
    Mutant(
        "a hold is measured by the wall clock",
        "backfill.py",
        "        now = self._monotonic()\n        held =",
        "        now = self._now_us() / 1e6\n        known =",
    ),
    Mutant(
        "A3: a duplicate is detected by its id alone",
        "stream/pipeline.py",
        "            if not self._trades.is_unproven(flow, trade):\n                return\n",
        "            if not self._trades.is_unproven(flow, trade) or True:\n                return\n",
        seed=27,
    ),
    Mutant(
        "A3: quotes below the newest are skipped without limit",
        "stream/quote_publisher.py",
        "                self._hold_low_quote(flow, quote)\n",
        "",
        seed=27,
    ),
    Mutant(
        "A4: liveness is judged by symbol and not by stream",
        "stall_detector.py",
        'return flow.trades if stream.kind == "trade" else flow.quotes',
        "return flow.trades + flow.quotes",
        seed=415,
    ),
    Mutant(
        "A5: an invalid row discards its page",
        "venues/binance_spot/rows.py",
        "            raws = [bytes(raw) for raw in _raws.decode(body)]\n",
        "            raise\n",
        seed=200,
    ),
    Mutant(
        "A5: one backoff for all gaps of a symbol",
        "backfill_schedule.py",
        "        self._requests = planned\n        return planned\n",
        "        latest = max((each.due for each in planned), default=now)\n"
        "        self._requests = planned = [each._replace(due=latest) for each in planned]\n"
        "        return planned\n",
        seed=10**12 + 54,
    ),
    Mutant(
        "A6: a unit is not validated",
        "stream/pipeline.py",
        "                EARLIEST_US <= time_us <= latest_us\n                and (",
        "                True\n                or (",
        seed=781,
    ),
    Mutant(
        "A6: a connection in the wrong unit is kept",
        "stall_detector.py",
        "        self._rotate_rejecting()\n",
        "",
        seed=781,
    ),
    Mutant(
        "B1: ready while Kafka does not respond",
        "status.py",
        "        if self._kafka.reason:\n",
        "        if False:\n",
        seed=20,
    ),
    Mutant(
        "B8: a proof covers the requested ids, and not the proven ones",
        "venues/binance_spot/rest.py",
        "self._fetched(query, page, page.rows, first,",
        "self._fetched(query._replace(needed=[requested]), page, page.rows, first,",
        seed=27,
    ),
    Mutant(
        "B9: a connection that is refused once is not retried",
        "connection/connection.py",
        "                await asyncio.sleep(delay)\n                continue\n",
        "                await asyncio.sleep(1e9)\n                continue\n",
        seed=98,
    ),
    Mutant(
        "B10: a late trade sets the time of the newest back",
        "stream/symbol_flow.py",
        "if self.last_trade_time_us is None or newest_us > self.last_trade_time_us:",
        "if True:",
        seed=788,
    ),
    Mutant(
        "F2: gaps are updated only while none of their trades is in flight",
        "stream/gap_publisher.py",
        "        if not flow.gaps:\n            return\n        for entry in flow.update_gaps():",
        "        if not flow.gaps or flow.unacknowledged:\n            return\n"
        "        for entry in flow.update_gaps():",
        seed=10**12 + 1,
    ),
    Mutant(
        "F2: the checkpoint waits while a backfilled trade is in flight",
        "kafka/checkpoints.py",
        "            if flow is not None and flow.id_series != id_series:\n",
        "            if flow is not None and (flow.id_series != id_series or flow.unacknowledged):\n",
        seed=10**12 + 1,
    ),
    Mutant(
        "F3: bans are measured by the wall clock",
        "worker.py",
        "WeightBudget(settings.venue_budget_share, world.monotonic)",
        "WeightBudget(settings.venue_budget_share, lambda: world.now_us() / 1e6)",
        seed=58,
    ),
    Mutant(
        "F4, F5: idle time is measured by the wall clock",
        "worker.py",
        "            world.monotonic,\n            settings.ready_quiet_seconds,\n",
        "            lambda: world.now_us() / 1e6,\n            settings.ready_quiet_seconds,\n",
        seed=58,
    ),
    Mutant(
        "F6: a stream without data makes every new connection unready for half a minute",
        "status.py",
        "        return self._streams.not_ready()\n",
        "        sessions = [each.session for each in self._pool.connections if each.session is not None]\n"
        "        newest = max((each.connected_at for each in sessions), default=0.0)\n"
        "        silent = any(not flow.quotes for flow in self._pipeline.flows.values())\n"
        "        is_early = silent and self._monotonic() - newest < 30\n"
        '        return self._streams.not_ready() or ("no first message yet" if is_early else "")\n',
        seed=2,
    ),
    Mutant(
        "F7: a symbol that is halted at the start is left out",
        "validate.py",
        "in validate(symbols, listed).refused.items() if symbol not in listed\n",
        "in validate(symbols, listed).refused.items()\n",
        seed=299,
    ),
    Mutant(
        "F1: changes of a gap's parts are not published",
        "stream/gap_publisher.py",
        "is_due = entry.is_outdated if with_partial else entry.is_due",
        "is_due = entry.is_due",
        seed=95,
    ),
)


class DoesNotApplyError(Exception):
    """The text that a mutant replaces does not exist any more."""


def mutated(mutant: Mutant) -> str:
    """Return the mutant's file with its defect.

    Raises:
        DoesNotApplyError: the text that it replaces is not in the file.
    """
    text = (SOURCES[mutant.package] / mutant.file).read_text()
    if mutant.old not in text:
        raise DoesNotApplyError(f"{mutant.name}: {mutant.file} has no {mutant.old!r}")
    return text.replace(mutant.old, mutant.new)


@dataclass(frozen=True, slots=True)
class SeriesDecision:
    """Result of a mutant: the violated invariant and where; both "" when it survived."""

    mutant: Mutant
    invariant: str
    where: str

    @property
    def is_as_expected(self) -> bool:
        """Return whether it was killed, or has a reason to survive."""
        return bool(self.invariant) or bool(self.mutant.survives)


def battery(seeds: int, package: str, *, with_postgres: bool = False) -> tuple[str, str]:
    """Run the sessions of a mutant; return the first violated invariant and where, "" where all held.

    Args:
        seeds: drawn seeds.
        package: package of the mutant.
        with_postgres: whether the sessions run over PostgreSQL.
    """
    if with_postgres:
        from marketfeed_simtest.consumers.battery import postgres_sessions as sessions
    elif package == marketfeed_consumers.__name__:
        from marketfeed_simtest.consumers.battery import sessions
    else:
        from marketfeed_simtest.battery import sessions

    for where, violations in sessions(seeds):
        for name, text in violations.items():
            return name, f"{where}: {text}"
    return "", ""


@contextmanager
def mutated_package(mutant: Mutant) -> Iterator[dict[str, str]]:
    """Return the environment of processes that import a package with the mutant's defect; without a text: unchanged."""
    with tempfile.TemporaryDirectory(prefix="simtest-mutant-") as folder:
        environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
        if mutant.old:
            source = SOURCES[mutant.package]
            copy = Path(folder) / source.name
            shutil.copytree(source, copy, ignore=shutil.ignore_patterns("__pycache__"))
            (copy / mutant.file).write_text(mutated(mutant))
            environment["PYTHONPATH"] = folder
        yield environment


def decide(mutant: Mutant, seeds: int, timeout_seconds: float = 900.0) -> SeriesDecision:
    """Run the battery in a process with the mutant."""
    with mutated_package(mutant) as environment:
        command = [sys.executable, "-m", "marketfeed_simtest", "battery", "--seeds", str(seeds)]
        command += ["--package", mutant.package, *(["--postgres"] if mutant.with_postgres else [])]
        ran = subprocess.run(  # noqa: S603 - no shell
            command, env=environment, capture_output=True, text=True, check=False, timeout=timeout_seconds
        )
    if ran.returncode == 0:
        return SeriesDecision(mutant, "", "")
    invariant, _, where = ran.stdout.strip().partition("\t")
    return SeriesDecision(mutant, invariant or "harness", where or ran.stderr[-300:])


def as_it_is(package: str, *, with_postgres: bool) -> Mutant:
    """No defect."""
    name = f"{package} as it is{' over PostgreSQL' if with_postgres else ''}"
    return Mutant(name, "", "", "", "it is", package, with_postgres=with_postgres)


def judge_all(
    mutants: Sequence[Mutant], seeds: int, jobs: int, desired: Callable[[Mutant], bool]
) -> Iterator[SeriesDecision]:
    """Yield the results of each unchanged package, which must pass, then of each of its mutants, in order."""
    chosen = list(filter(desired, mutants))
    kinds = dict.fromkeys((mutant.package, mutant.with_postgres) for mutant in chosen)
    whole = [as_it_is(package, with_postgres=with_postgres) for package, with_postgres in kinds]
    with ThreadPoolExecutor(jobs) as pool:
        yield from pool.map(partial(decide, seeds=seeds), [*whole, *chosen])
