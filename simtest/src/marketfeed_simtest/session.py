"""One session: the real worker in virtual time, its faults, and the oracle's checks."""

import asyncio
import gc
import hashlib
import random
import traceback
from collections import Counter
from collections.abc import Iterator, Set
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Final

import msgspec

from marketfeed_service import settings as service_settings
from marketfeed_simtest import faults, holding
from marketfeed_simtest.clock import Clock, VirtualLoop
from marketfeed_simtest.ending import Ending, check_metrics
from marketfeed_simtest.faults import EachFault, begins, kind_of
from marketfeed_simtest.kafka_log import USUAL_DELAY_SECONDS, Cluster
from marketfeed_simtest.life import Life
from marketfeed_simtest.log_lines import LogLines
from marketfeed_simtest.oracle import Oracle
from marketfeed_simtest.plan import SYMBOLS_FILE, Plan, gaps_since
from marketfeed_simtest.venue_model import VenueModel
from marketfeed_simtest.watch import Watch
from marketfeed_simulator.faults import AnyFault, RestartIds
from marketfeed_wire.assignment import assignment_of, encode_assignment
from marketfeed_workers.settings import WorkerSettings

STOP_SECONDS: Final = 60.0
MOST_REQUESTS: Final = 100
"""Maximum number of requests about one symbol within ten seconds; about fifty are reached without a key."""
_REST_IS_WELL: Final = frozenset({"restart_ids", "drop", "cut", "close"})
"""Faults with which REST still has the first id of an id series."""
_LEVELLING_SECONDS: Final = 8.0
_OBJECTS_A_COLLECTION: Final = 50_000


@dataclass(slots=True)
class Outcome:
    """Result of a session.

    Attributes:
        violations: invariant -> its first violation.
        digest: digest of all records in Kafka.
        seconds: duration in virtual time.
        faults: kind -> number of faults.
        reached: states that a set of sessions should reach -> how often.
    """

    violations: dict[str, str]
    digest: str
    seconds: float
    trades: int
    records: int
    lives: int
    requests: int
    faults: Counter[str] = field(default_factory=Counter)
    reached: Counter[str] = field(default_factory=Counter)


class Session:
    """A running plan.

    Attributes:
        gaps_since: time before which no fault caused a gap.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.clock = clock = Clock()
        self.settings = service_settings.read(WorkerSettings, plan.environment())
        self.topics = {
            "trades": self.settings.market_trades_topic,
            "book_ticker": self.settings.market_book_topic,
            "progress": self.settings.market_progress_topic,
            "gaps": self.settings.market_gaps_topic,
            "rejected": self.settings.market_rejected_topic,
        }
        self.cluster = Cluster(clock, _rng("kafka", plan))
        self.files = {SYMBOLS_FILE: encode_assignment(assignment_of(plan.rates))}
        self.lives: dict[int, Life] = {}
        self.struck: Counter[str] = Counter()
        self.log = LogLines(clock)
        self._rng = _rng("world", plan)
        self.gaps_since = gaps_since(plan)
        self._over = False
        self._pause_seconds = 1.0
        self._healed_at = 0.0
        self.venue = VenueModel(
            clock,
            _rng("venue", plan),
            venue=plan.venue,
            rates=plan.rates,
            seed=plan.seed,
            quantum_seconds=plan.quantum_seconds,
            recent_trades=plan.recent_trades,
            slow_subscriptions=plan.slow_subscriptions,
            keeps_deliveries=any(isinstance(fault, RestartIds) for fault in plan.faults),
        )
        self.oracle = Oracle(
            clock,
            self.cluster,
            self.venue.truth,
            self.topics,
            self.settings.gap_hold_seconds,
            self.settings.progress_interval_seconds,
            venue=plan.venue,
            microseconds=self.venue.rules.microseconds,
            deliveries=self.venue.deliveries,
            odd_rows=lambda: self.venue.odd_rows,
            judges_holds=holding.is_judged(plan),
        )
        self.watch = Watch(
            self.oracle, clock, self.cluster, self.venue, plan, lambda: self.newest, self.lives
        )

    @property
    def newest(self) -> Life:
        """Return the process that was started last."""
        return self.lives[len(self.lives)]

    async def run(self) -> None:
        """Run from the first process to the last one's end."""
        market = asyncio.create_task(self.venue.run(), name="market")
        if self.plan.head_start_seconds:
            await asyncio.sleep(self.plan.head_start_seconds)
        watching = asyncio.create_task(self.watch.run(), name="watch")
        for task in (market, watching):
            task.add_done_callback(self._on_harness_end)
        try:
            self.start()
            await self._strike_all()
            await self._heal()
            await self.watch.until_well()
            self.watch.check_collections()
            await self._stop()
            self._judge()
        finally:
            for task in (market, watching):
                task.cancel()
            with suppress(BaseException):
                await asyncio.wait({market, watching})

    def start(self) -> Life:
        """Start the next process."""
        number = len(self.lives) + 1
        life = Life(
            number,
            self.settings,
            self.clock,
            self.cluster,
            self.venue,
            self.plan.seed,
            self.plan.poll_seconds,
            self.files,
        )
        life.on_end = self._on_end
        self.lives[number] = life
        self.oracle.fates[number] = life
        self.log.life = number
        return life

    def _on_end(self, life: Life) -> None:
        if life.error is not None:
            self.oracle.violate("crashed", f"{type(life.error).__name__}: {life.error}")
        if life is self.newest and not self._over:
            asyncio.get_running_loop().call_later(self._pause_seconds, self._start_unless_over, life)
            self._pause_seconds = 1.0

    def _start_unless_over(self, before: Life) -> None:
        if before is self.newest and not self._over:
            self.start()

    async def _strike_all(self) -> None:
        for fault in self.plan.faults:
            await asyncio.sleep(max(0.0, begins(fault) - self.clock.seconds))
            self.strike(fault)
        await asyncio.sleep(max(0.0, self.plan.duration_seconds - self.clock.seconds))

    def strike(self, fault: EachFault) -> None:
        """Start a fault."""
        self.struck[kind_of(fault)] += 1
        match fault:
            case faults.Crash(pause_seconds=pause):
                self._pause_seconds = pause
                self.newest.kill()
            case faults.Restart(pause_seconds=pause):
                self._pause_seconds = pause
                self.newest.terminate()
            case faults.Overlap(seconds=seconds):
                self.start_beside(seconds)
            case faults.ClockStep(seconds=seconds):
                self.clock.step(seconds)
            case faults.Freeze(seconds=seconds):
                self.oracle.excuses.add(self.clock.seconds, seconds)
                self.clock.advance(seconds)
            case faults.KafkaOutage() | faults.KafkaSlow() | faults.KafkaRefuses():
                self._strike_kafka(fault)
            case faults.Assign(symbols=symbols, broken=broken):
                self._assign(set(symbols) & self.plan.rates.keys(), broken=broken)
            case _:
                self.venue.strike(_begun(fault))

    def _assign(self, symbols: Set[str], *, broken: bool) -> None:
        content = encode_assignment(assignment_of(symbols))
        self.files[SYMBOLS_FILE] = content[: len(content) // 2] if broken else content
        for name in self.plan.rates.keys() - symbols if not broken else ():
            self.oracle.symbols[name].left.append(self.clock.seconds)

    def _strike_kafka(self, fault: faults.KafkaOutage | faults.KafkaSlow | faults.KafkaRefuses) -> None:
        match fault:
            case faults.KafkaOutage(seconds=seconds):
                self.cluster.outage(seconds)
                self.oracle.excuses.add(self.clock.seconds, seconds)
            case faults.KafkaSlow(delay_seconds=delay, topics=topics):
                if topics:
                    self.cluster.slow_topics.update({self.topics[topic]: delay for topic in topics})
                else:
                    self.cluster.delay_seconds = delay
                self.oracle.excuses.slow_down(delay)
            case faults.KafkaRefuses(topic=topic):
                self.cluster.refused_topics.add(self.topics[topic])

    def start_beside(self, seconds: float) -> None:
        """Start the next process beside the running one, which is killed later."""
        old = self.newest
        if old.is_running:
            self.start()
            asyncio.get_running_loop().call_later(seconds, old.kill)

    async def _heal(self) -> None:
        """Remove every fault once bans are over; then lose two trades: a small new gap must be backfilled."""
        while (wait := max(self.cluster.down_until, self.venue.away_until) - self.clock.seconds) > 0:
            self.venue.heal()
            await asyncio.sleep(wait)
        self.venue.heal()
        self.cluster.delay_seconds = USUAL_DELAY_SECONDS
        self.cluster.slow_topics.clear()
        self.cluster.refused_topics.clear()
        self.files[SYMBOLS_FILE] = encode_assignment(assignment_of(self.plan.rates))
        self._healed_at = self.clock.seconds
        await asyncio.sleep(_LEVELLING_SECONDS)
        self.venue.drop_trades(2)
        await asyncio.sleep(4)

    async def _stop(self) -> None:
        self._over = True
        last = self.newest
        refused = last.was_refused
        last.terminate()
        stopping = asyncio.create_task(last.gone(), name="stopping")
        await asyncio.wait({stopping}, timeout=STOP_SECONDS)
        if not stopping.done():
            self.oracle.violate("no_stop", f"the worker did not stop within {STOP_SECONDS:.0f} s")
            last.kill()
            await asyncio.wait({stopping})
        elif last.code and not refused and last.is_serving is False and last.ending == "exited":
            self.oracle.violate("exit_code", f"a stop without a fault ended with {last.code}")
        for life in self.lives.values():
            life.kill()

    def _judge(self) -> None:
        self.cluster.step()
        kinds = ",".join(self.settings.binance_streams)
        Ending(
            self.oracle,
            self.venue.truth.symbols,
            self.lives,
            deliveries=self.venue.delivered,
            gaps_since=min(self.gaps_since, self._healed_at),
            knows_beginnings=all(kind_of(fault) in _REST_IS_WELL for fault in self.plan.faults),
            backfill_from=self.settings.backfill_from,
        ).check(self.plan.rates, kinds)
        for life in self.lives.values():
            if life.ending == "exited" and life.code == 0:
                frames = self.venue.frames_delivered[life.number]
                check_metrics(self.oracle, life, self.topics, frames, is_last=life is self.newest)
        for complaint in self.venue.complaints[:1]:
            self.oracle.violate("venue_limits", complaint)
        if self.venue.most_requests > MOST_REQUESTS:
            self.oracle.violate("too_many_requests", f"{self.venue.most_requests} of one symbol within 10 s")
        if self.log.most_a_minute > self.log.ALLOWED_A_MINUTE:
            self.oracle.violate("unbounded_log", f"{self.log.most_a_minute} lines within a minute")

    def _on_harness_end(self, task: "asyncio.Task[None]") -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self.oracle.violate("harness", "".join(traceback.format_exception(error)[-3:]))

    def digest(self) -> str:
        """Return the digest of all records in Kafka: equal sessions have equal ones."""
        digest = hashlib.sha256()
        for topic, partitions in sorted(self.cluster.topics.items()):
            for number, partition in enumerate(partitions):
                digest.update(b"%s %d " % (topic.encode(), number))
                for record in partition:
                    digest.update(b"%d %r " % (record.life, record.seconds))
                    digest.update(record.key)
                    digest.update(record.value or b"")
        return digest.hexdigest()[:16]


def run(plan: Plan, *, keep_log: bool = False) -> tuple[Outcome, LogLines]:
    """Run a plan to its end."""
    return run_session(Session(plan), keep_log=keep_log)


def run_session(session: Session, *, keep_log: bool = False) -> tuple[Outcome, LogLines]:
    """Run a session to its end."""
    loop = VirtualLoop(session.clock)
    session.log.keep = keep_log
    with session.clock.installed(), session.log.captured(), _rare_collections():
        try:
            loop.run_until_complete(session.run())
        except Exception as error:  # noqa: BLE001 - a failure of the simulation is an outcome, too
            session.oracle.violate("harness", "".join(traceback.format_exception(error)[-4:]))
        finally:
            _end_all_tasks(loop)
            loop.close()
    cluster = session.cluster
    outcome = Outcome(
        violations=session.oracle.violations,
        digest=session.digest(),
        seconds=session.clock.seconds,
        trades=sum(len(each.trades) for each in session.venue.truth.symbols.values()),
        records=cluster.writes,
        lives=len(session.lives),
        requests=session.venue.requests,
        faults=session.struck,
        reached=_reached(session),
    )
    return outcome, session.log


@contextmanager
def _rare_collections() -> Iterator[None]:
    """Run the garbage collector rarely: nearly all objects of a session live until its end."""
    before = gc.get_threshold()
    gc.set_threshold(_OBJECTS_A_COLLECTION, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)


def _reached(session: Session) -> Counter[str]:
    """Return the states that were reached."""
    reached: Counter[str] = Counter()
    for life in session.lives.values():
        reached[f"process {life.ending}" + (f" with {life.code}" if life.ending == "exited" else "")] += 1
    for known in session.oracle.symbols.values():
        for gap, _ in (each for one in known.series.values() for each in one.gaps.values()):
            reached[f"gap {gap.state} by {gap.proof}"] += 1
    reached.update(f"log: {event}" for event in session.log.events)
    return reached


def _end_all_tasks(loop: VirtualLoop) -> None:
    pending = asyncio.all_tasks(loop)
    for task in pending:
        task.cancel()
    if pending:
        loop.run_until_complete(asyncio.wait(pending, timeout=5))


def _begun(fault: AnyFault) -> AnyFault:
    return msgspec.structs.replace(fault, after_seconds=None)


def _rng(part: str, plan: Plan) -> random.Random:
    """Return the random number generator of one component: removing a part of a plan does not change the others'."""
    return random.Random(f"{part} {plan.seed}")  # noqa: S311 - a test that can be repeated
