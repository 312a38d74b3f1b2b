"""Lifecycle of a worker: validate symbols, recover state, open connections, run, drain."""

import asyncio
from functools import partial
from typing import cast

from aiohttp import ClientSession
from prometheus_client import CollectorRegistry

from marketfeed_service import logs
from marketfeed_workers import startup, validate
from marketfeed_workers.backfill import Backfiller
from marketfeed_workers.connection.parts import ConnectionParts
from marketfeed_workers.connection.pool import ConnectionPool
from marketfeed_workers.counters import Counters, StreamCounters
from marketfeed_workers.kafka.checkpoints import CheckpointPublisher
from marketfeed_workers.kafka.monitor import KafkaMonitor
from marketfeed_workers.kafka.publisher import Publisher
from marketfeed_workers.kafka.recovery import SharedRecovery, recover_state
from marketfeed_workers.metrics import WorkerMetrics
from marketfeed_workers.rate_limit import AttemptBudget, WeightBudget
from marketfeed_workers.settings import WorkerSettings
from marketfeed_workers.shutdown import stop_signals, unless_stopped
from marketfeed_workers.stall_detector import StallDetector
from marketfeed_workers.status import WorkerHealth
from marketfeed_workers.stream.id_series_monitor import IdSeriesMonitor
from marketfeed_workers.stream.pipeline import Pipeline
from marketfeed_workers.symbol_assignment import SymbolAssignment, read_assignment
from marketfeed_workers.venues.clock import VenueClock
from marketfeed_workers.venues.monitor import VenueMonitor
from marketfeed_workers.venues.registry import VENUES
from marketfeed_workers.venues.venue import RestAccess, StreamKind, VenueRest
from marketfeed_workers.world import World

log = logs.get(__name__)


async def print_validation(settings: WorkerSettings, world: World | None = None) -> int:
    """Validate the symbols and print a table; return 0 if all are valid, otherwise 1.

    Raises:
        StartupError: the venue did not respond.
    """
    world = world or World()
    async with world.http_session() as session:
        rest, _ = _rest(
            settings, session, world, _counters(settings), VenueClock(world.now_us, world.monotonic)
        )
        listed = await startup.retry_until_deadline(settings, rest.symbols)
    print(validate.table(settings.binance_symbols, listed))
    return 1 if validate.validate(settings.binance_symbols, listed).refused else 0


async def run(settings: WorkerSettings, world: World | None = None) -> int:
    """Run until SIGTERM or SIGINT, or until Kafka permanently rejects a message; return the exit code.

    `world` has the external dependencies; None: the real ones.

    Raises:
        SettingsError: the assignment file is invalid.
        StartupError: venue or broker unreachable until the deadline, or no valid symbol.
    """
    world = world or World()
    if settings.symbols_file:
        read_assignment(settings.symbols_file, world)
    stop = asyncio.Event()
    with stop_signals(stop):
        async with world.http_session() as session:
            await asyncio.to_thread(world.wait_for_broker, settings, stopping=stop.is_set)
            if stop.is_set():
                return 0
            max_batch_bytes = await asyncio.to_thread(world.ensure_topics, settings)
            if settings.kafka_acks != "all":
                log.warning(
                    "KAFKA_ACKS is not all: acknowledged messages can be lost, duplicated or reordered",
                    acks=settings.kafka_acks,
                )
            worker = _make(settings, session, world, max_batch_bytes)
            if not await unless_stopped(stop, worker.assignment.begin()):
                return 0
            return await worker.run(stop)


class _Worker:
    """The parts of a running worker."""

    def __init__(
        self,
        settings: WorkerSettings,
        rest: VenueRest,
        weight: WeightBudget,
        max_batch_bytes: int | None,
        world: World,
        counters: Counters,
        clock: VenueClock,
    ) -> None:
        venue = VENUES[settings.venue].reading(
            frozenset(cast(tuple[StreamKind, ...], settings.binance_streams))
        )
        now_us, rng = world.now_us, world.rng
        self._world = world
        self._settings = settings
        self._counters = counters
        self._publisher = Publisher(
            settings, now_us, max_batch_bytes, make_producer=world.make_producer, monotonic=world.monotonic
        )
        self._pipeline = Pipeline(venue, self._publisher, counters, now_us, world.monotonic, clock)
        self._checkpoints = CheckpointPublisher(settings, self._pipeline, self._publisher, counters, now_us)
        self._backfiller = Backfiller(
            settings,
            self._pipeline,
            rest,
            counters,
            now_us,
            rng,
            monotonic=world.monotonic,
            has_spare=lambda: weight.has_spare,
            has_ample_spare=lambda: weight.has_ample_spare,
        )
        self._series = IdSeriesMonitor(
            self._pipeline,
            rest,
            counters,
            lambda: weight.has_spare,
            lambda symbol: self._pool.covers([symbol]),
            SharedRecovery(partial(recover_state, settings, world.read_topic)),
        )
        self._watch = VenueMonitor(rest, self._pipeline, counters, clock)
        self._streams = StallDetector(
            venue,
            rest,
            self._pipeline,
            counters,
            world.monotonic,
            settings.ready_quiet_seconds,
            self._watch,
        )
        self._kafka = KafkaMonitor(settings, self._publisher, world.make_topic_probe(settings))
        attempts = AttemptBudget(
            venue.facts.connection_attempts,
            settings.venue_budget_share,
            venue.facts.connection_attempts_window_seconds,
            world.monotonic,
        )
        parts = ConnectionParts(
            venue=venue,
            settings=settings,
            open_socket=world.open_socket[settings.ws_transport],
            pipeline=self._pipeline,
            counters=counters,
            attempts=attempts,
            streams=self._streams,
            now_us=now_us,
            monotonic=world.monotonic,
            rng=rng,
        )
        most = venue.facts.max_streams_per_connection // len(venue.kinds)
        self._pool = ConnectionPool(parts, min(settings.ws_shard_size, most))
        self._streams.watch(self._pool)
        self.assignment = SymbolAssignment(
            settings, rest, self._pipeline, self._pool, (weight, attempts), world
        )
        self._health = WorkerHealth(
            settings,
            counters,
            self._pipeline,
            self._publisher,
            self._pool,
            self._watch,
            self._streams,
            self._kafka,
            self.assignment,
            world.monotonic,
        )
        self._registry = CollectorRegistry()
        self._registry.register(WorkerMetrics(counters, self._publisher, self._health, weight, attempts))

    async def run(self, stop: asyncio.Event) -> int:
        """Run until `stop` is set; return the exit code."""
        settings = self._settings
        with self._world.make_health_server(
            self._health, self._registry, host=settings.metrics_host, port=settings.metrics_port
        ) as server:
            server.write_port(settings.metrics_port_file)
            log.info(
                "worker started",
                venue=settings.venue,
                shard=settings.shard,
                symbols=len(self._pipeline.flows),
                connections=len(self._pool.connections),
                metrics_port=server.port,
            )
            async with asyncio.TaskGroup() as tasks:
                running = [
                    tasks.create_task(part.run(), name=type(part).__name__)
                    for part in (
                        self._pool,
                        self._backfiller,
                        self._watch,
                        self._streams,
                        self._kafka,
                        self._series,
                        self.assignment,
                    )
                ]
                await self._poll_until(stop)
                self._health.draining = True
                for task in running:
                    task.cancel()
            return self._drain()

    async def _poll_until(self, stop: asyncio.Event) -> None:
        """Process acknowledgements until `stop` is set, or until Kafka permanently rejects a message."""
        monotonic = self._world.monotonic
        checkpoint_due = monotonic()
        while not stop.is_set() and not self._publisher.fatal_error:
            self._pipeline.poll()
            self._backfiller.enforce_limits()
            if monotonic() >= checkpoint_due:
                self._checkpoints.publish()
                checkpoint_due = monotonic() + self._settings.progress_interval_seconds
            self._health.last_loop_at = self._world.monotonic()
            try:
                async with asyncio.timeout(self._world.poll_seconds):  # unlike `wait_for` this needs no task
                    await stop.wait()
            except TimeoutError:
                continue

    def _drain(self) -> int:
        """Flush the publisher. Trades in reorder buffers are left to the next process, which backfills them."""
        publisher, seconds = self._publisher, self._settings.drain_deadline_seconds
        monotonic = self._world.monotonic
        deadline = monotonic() + seconds
        if publisher.fatal_error:
            publisher.replace_producer(seconds / 2)
        else:
            while not publisher.flush(max(0.0, deadline - monotonic())):
                self._pipeline.run_deferred()  # records of gaps, deferred to these acknowledgements
                self._pipeline.gaps.publish_changes()
                if not publisher.pending:
                    break
        self._checkpoints.publish(is_final=True)
        left = publisher.flush(max(0.0, deadline - monotonic()))
        counters = self._counters
        account = {
            "received": sum(stream.received for stream in counters.topics),
            "acknowledged": sum(stream.acknowledged for stream in counters.topics),
            "backfilled": counters.backfilled,
        }
        if publisher.fatal_error:
            log.error("worker stopped to prevent data loss", reason=publisher.fatal_error, **account)
            return 1
        if left:
            log.error("worker stopped with unacknowledged messages", unacknowledged=left, **account)
            return 1
        log.info("worker stopped, all messages acknowledged", **account)
        return 0


def _counters(settings: WorkerSettings) -> Counters:
    return Counters(
        StreamCounters("trade", settings.market_trades_topic),
        StreamCounters("book_ticker", settings.market_book_topic),
        StreamCounters("gaps", settings.market_gaps_topic),
        StreamCounters("progress", settings.market_progress_topic),
        StreamCounters("rejected", settings.market_rejected_topic),
    )


def _make(
    settings: WorkerSettings, session: ClientSession, world: World, max_batch_bytes: int | None
) -> _Worker:
    counters, clock = _counters(settings), VenueClock(world.now_us, world.monotonic)
    rest, weight = _rest(settings, session, world, counters, clock)
    return _Worker(settings, rest, weight, max_batch_bytes, world, counters, clock)


def _rest(
    settings: WorkerSettings, session: ClientSession, world: World, counters: Counters, clock: VenueClock
) -> tuple[VenueRest, WeightBudget]:
    venue = VENUES[settings.venue]
    budget = WeightBudget(settings.venue_budget_share, world.monotonic)
    access = RestAccess(
        settings.binance_rest_base or venue.facts.rest_base,
        session,
        budget,
        settings.binance_api_key,
        world.now_us,
        lambda reason, count: counters.failures.update({reason: count}),
        clock.latest_us,
        world.monotonic,
    )
    return venue.rest(access), budget
