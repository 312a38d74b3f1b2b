"""The consumer process: waiting for dependencies at start, health probes, shutdown."""

import gc
import os
import socket
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Final

import msgspec
from prometheus_client import CollectorRegistry

from marketfeed_consumers import __version__
from marketfeed_consumers.admin.auditor import Auditor
from marketfeed_consumers.consumer import Consumer
from marketfeed_consumers.database import connections, schema
from marketfeed_consumers.database.tables import trades
from marketfeed_consumers.metrics import Metrics
from marketfeed_consumers.settings import ConsumerSettings
from marketfeed_consumers.state import LATENCY_BOUNDS_US, State
from marketfeed_consumers.storage.writer import Writer
from marketfeed_service import logs
from marketfeed_service.errors import StartupError
from marketfeed_service.health import HealthServer, ProbeResult
from marketfeed_service.histogram import total
from marketfeed_service.kafka import wait_for_broker
from marketfeed_service.process import on_stop_signal
from marketfeed_wire.status import (
    ConsumerStatus,
    PartitionStatus,
    RetentionStatus,
    StoredSymbolStatus,
)

log = logs.get(__name__)

_STUCK_SECONDS: Final = 180.0
"""Liveness fails if the loop makes no step for this long: longer than any intended wait."""


_SWITCH_SECONDS: Final = 0.0002
"""Thread switch interval. With Python's default (5 ms) the database waits that long for the writer thread's next piece
of COPY data, which reduces throughput.
"""


class ConsumerHealth:
    """The health and status of a consumer process."""

    def __init__(self, settings: ConsumerSettings, state: State, writer: Writer, auditor: Auditor) -> None:
        self._settings = settings
        self._state = state
        self._writer = writer
        self._auditor = auditor
        self.starting = "starting"

    def livez(self) -> ProbeResult:
        """Return whether the loop makes progress."""
        seconds = time.monotonic() - self._state.last_step
        if self.starting or seconds < _STUCK_SECONDS:
            return ProbeResult(True)
        return ProbeResult(False, f"the loop has made no progress for {seconds:.0f} s")

    def readyz(self) -> ProbeResult:
        """Return whether messages can be read and stored."""
        reason = self.starting or self._writer.why_paused() or self._state.kafka_error
        if not reason and self._state.missing_topics:
            reason = f"topics that do not exist: {', '.join(sorted(self._state.missing_topics.copy()))}"
        if not reason and not self._state.joined:
            reason = f"waiting to be assigned partitions in group {self._settings.kafka_group}"
        return ProbeResult(not reason, reason)

    def status(self) -> bytes:
        """Return the `ConsumerStatus` as JSON."""
        return msgspec.json.encode(self._status())

    def _status(self) -> ConsumerStatus:
        state, ready = self._state, self.readyz()
        latencies = state.latencies.copy()
        whole = total(latencies.values(), LATENCY_BOUNDS_US)
        by_symbol = {
            symbol: total((one for key, one in latencies.items() if key[2] == symbol), LATENCY_BOUNDS_US)
            for symbol in sorted({key[2] for key in latencies})
        }
        conflicts = state.conflicts.copy()
        series = {key[2]: key[3] for key in sorted(state.stored_ranges.copy()) if key[0] == trades.NAME}
        return ConsumerStatus(
            version=__version__,
            group=self._settings.kafka_group,
            ready=ready.ok,
            reason=ready.reason,
            partitions=[
                PartitionStatus(
                    topic=topic,
                    partition=number,
                    next_offset=owned.next_offset,
                    end_offset=owned.end_offset,
                )
                for (topic, number), owned in sorted(state.partitions.copy().items())
            ],
            inserted=dict(state.inserted),
            duplicates=dict(state.duplicates),
            conflicts=_by_table(conflicts),
            unverifiable=dict(state.unverifiable),
            expired=dict(state.expired),
            retention=self._retention(),
            dead_letters=sum(state.dead_letters.values()),
            symbols={
                symbol: StoredSymbolStatus(
                    rows=one.count,
                    latency_p50_us=one.quantile_us(0.5),
                    latency_p99_us=one.quantile_us(0.99),
                    conflicts=sum(n for (_, own), n in conflicts.items() if own == symbol),
                    id_series=series.get(symbol, 0),
                )
                for symbol, one in by_symbol.items()
            },
            latency_p50_us=whole.quantile_us(0.5),
            latency_p99_us=whole.quantile_us(0.99),
        )

    def _retention(self) -> dict[str, RetentionStatus]:
        taken = self._auditor.taken
        return {
            one.table: RetentionStatus(
                deleted_rows=one.deleted,
                impossible_rows=sum(one.impossible.values()),
                unfinished_symbols=one.unfinished,
                finished_time_us=one.finished_time_us,
            )
            for one in (taken.retained if taken else ())
        }


def run(settings: ConsumerSettings, at: Callable[[str], None] = lambda _: None) -> int:
    """Consume until a stop signal; return the exit code.

    Args:
        settings: see settings.py.
        at: failpoint: called at each named point of a transaction, see transaction.FAILPOINTS.

    Raises:
        ServiceError: the process cannot continue; the text has the reason.
    """
    logs.configure(settings.log_level, settings.log_format)
    url = settings.database_url.get_secret_value()
    state, writer, registry = State(), Writer(url, at=at), CollectorRegistry()
    first = (settings.market_trades_topic, 0)
    auditor = Auditor(url, settings.audit_interval_seconds, lambda: first in state.partitions)
    metrics = Metrics(registry, state, writer, auditor, lambda: time.time_ns() // 1000)
    health = ConsumerHealth(settings, state, writer, auditor)
    stopped: list[bool] = []
    on_stop_signal(lambda: stopped.append(True))
    with HealthServer(health, registry, host=settings.metrics_host, port=settings.metrics_port) as server:
        server.write_port(settings.metrics_port_file)
        health.starting = f"waiting for the database at {connections.server(url)}"
        try:
            with connections.wait_for_database(
                url, settings.start_deadline_seconds, lambda: bool(stopped)
            ) as (
                connection,
                _,
            ):
                schema.check(connection)
        except StartupError:
            if stopped:
                return 0
            raise
        health.starting = f"waiting for Kafka at {settings.kafka_broker}"
        wait_for_broker(settings, stopping=lambda: bool(stopped))
        loop = Consumer(settings, writer, state, name=_name(settings), observe=metrics.stored)
        on_stop_signal(loop.stop)
        if stopped:
            return 0
        health.starting = ""
        log.info(
            "consumer started",
            topics=",".join(settings.topics()),
            group=settings.kafka_group,
            metrics_port=server.port,
        )
        _calm_garbage_collection()
        sys.setswitchinterval(_SWITCH_SECONDS)
        try:
            with auditor:
                loop.run()
        finally:
            writer.close()
    log.info("consumer stopped", rows=sum(state.inserted.values()), batches=state.batches)
    return 0


def _by_table(counts: Mapping[tuple[str, str], int]) -> dict[str, int]:
    totals: Counter[str] = Counter()
    for (table, _), count in counts.items():
        totals[table] += count
    return dict(totals)


def _calm_garbage_collection() -> None:
    """Run the garbage collector rarely: the records of a batch are many young objects without cycles.

    With Python's defaults the collector takes a tenth of the loop's time. The threshold counts allocations minus
    deallocations: it is above the number of records held (three batches), so that only cyclic garbage triggers a run.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 50, 100)


def _name(settings: ConsumerSettings) -> str:
    return settings.kafka_group_instance_id or f"{socket.gethostname()}:{os.getpid()}"
