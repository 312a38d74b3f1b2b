"""Liveness, readiness and ``/status`` of a worker. Called from the health server's thread."""

import importlib.metadata
from collections.abc import Callable
from typing import Final

import msgspec

from marketfeed_service.health import ProbeResult
from marketfeed_wire.status import StreamStatus, SymbolStatus, WorkerStatus
from marketfeed_workers.connection.pool import ConnectionPool
from marketfeed_workers.counters import Counters
from marketfeed_workers.kafka.monitor import KafkaMonitor
from marketfeed_workers.kafka.publisher import Publisher
from marketfeed_workers.settings import WorkerSettings
from marketfeed_workers.stall_detector import StallDetector
from marketfeed_workers.stream.pipeline import Pipeline
from marketfeed_workers.stream.symbol_flow import SymbolFlow
from marketfeed_workers.symbol_assignment import SymbolAssignment
from marketfeed_workers.venues.monitor import VenueMonitor

VERSION: Final = importlib.metadata.version("marketfeed-workers")
STUCK_AFTER_SECONDS: Final = 30.0
MAX_HOLD_SECONDS: Final = 10.0
"""An id reset is confirmed or excluded over REST within five seconds."""


def check_event_loop(silent_seconds: float, drain_seconds: float) -> ProbeResult:
    """Check that the event loop is not stuck; a drain may block it for `drain_seconds`."""
    return ProbeResult(
        silent_seconds < STUCK_AFTER_SECONDS + drain_seconds,
        f"event loop blocked for {silent_seconds:.0f} s",
    )


class WorkerHealth:
    """Implements `Health`.

    Attributes:
        last_loop_at: monotonic time of the event loop's last iteration; `livez` fails when it is too old.
        draining: the worker is shutting down and flushes messages.
    """

    def __init__(
        self,
        settings: WorkerSettings,
        counters: Counters,
        pipeline: Pipeline,
        publisher: Publisher,
        pool: ConnectionPool,
        watch: VenueMonitor,
        streams: StallDetector,
        kafka: KafkaMonitor,
        assignment: SymbolAssignment,
        monotonic: Callable[[], float],
    ) -> None:
        self.last_loop_at = monotonic()
        self.draining = False
        self._settings = settings
        self._counters = counters
        self._pipeline = pipeline
        self._publisher = publisher
        self._pool = pool
        self._watch = watch
        self._streams = streams
        self._kafka = kafka
        self._assignment = assignment
        self._monotonic = monotonic

    def livez(self) -> ProbeResult:
        """Check that the event loop is not stuck."""
        drain_seconds = self._settings.drain_deadline_seconds if self.draining else 0.0
        return check_event_loop(self._monotonic() - self.last_loop_at, drain_seconds)

    def readyz(self) -> ProbeResult:
        """Check that every stream delivers."""
        reason = self.not_ready_reason()
        return ProbeResult(not reason, reason)

    def status(self) -> bytes:
        """Return a `WorkerStatus` as JSON."""
        return msgspec.json.encode(self.worker_status())

    def not_ready_reason(self) -> str:
        """Return why the worker is not ready; "" if it is."""
        if self.draining:
            return "stopping"
        if self._publisher.fatal_error:
            return self._publisher.fatal_error
        if self._publisher.auth_failed:
            return self._publisher.last_error
        for connection in self._pool.connections:
            if connection.status().state != "streaming":
                return f"connection {connection.status().id}: {connection.status().reason}"
        if self._pipeline.paused:
            last_error = self._publisher.last_error
            return "waiting for Kafka to acknowledge" + (f": {last_error}" if last_error else "")
        if self._kafka.reason:
            return self._kafka.reason
        rejecting = [flow.symbol for flow in list(self._pipeline.flows.values()) if flow.is_rejecting]
        if rejecting:
            return f"all messages of {', '.join(sorted(rejecting)[:5])} are rejected: impossible times; see the log"
        held = self._pipeline.resets.held_symbols(MAX_HOLD_SECONDS)
        if held:
            return (
                f"trades of {', '.join(sorted(held)[:5])} are held: their ids may have been reset, and REST has not "
                "confirmed it"
            )
        return self._streams.not_ready()

    def _not_trading(self) -> dict[str, str]:
        """Return the assigned symbols that do not trade -> status."""
        flows = self._pipeline.flows
        return {symbol: status for symbol, status in list(self._watch.not_trading.items()) if symbol in flows}

    def worker_status(self) -> WorkerStatus:
        """Return the content of ``/status``."""
        reason = self.not_ready_reason()
        streams = self._counters.topics
        return WorkerStatus(
            version=VERSION,
            venue=self._settings.venue,
            shard=self._settings.shard,
            ready=not reason,
            reason=reason,
            symbols={
                symbol: _symbol_status(flow, self._streams.status(symbol))
                for symbol, flow in list(self._pipeline.flows.items())
            },
            refused_symbols={**self._assignment.refused, **self._not_trading()},
            connections=[connection.status() for connection in self._pool.connections],
            received={stream.topic: stream.received for stream in streams},
            acknowledged={stream.topic: stream.acknowledged for stream in streams},
            failed={stream.topic: stream.failed for stream in streams},
            pending=self._publisher.pending,
            rejected=dict(self._counters.rejections),
            unexpected=self._counters.unexpected,
            oldest_unacknowledged_seconds=round(self._publisher.oldest_unacknowledged_seconds, 1),
            assignment=self._assignment.applied,
        )


def _symbol_status(flow: SymbolFlow, streams: dict[str, StreamStatus]) -> SymbolStatus:
    expected = flow.sequence.expected
    return SymbolStatus(
        trades=flow.trades,
        quotes=flow.quotes,
        last_trade_id=flow.sequence.newest if expected is None else expected - 1,
        last_trade_time_us=flow.last_trade_time_us,
        missing=flow.missing,
        duplicates=flow.sequence.duplicates,
        streams=streams,
        id_series=flow.id_series,
        quote_series=flow.quote_series,
        conflicts=flow.conflicts,
        unproven=flow.unproven,
        held=len(flow.suspected_reset.trades) if flow.suspected_reset is not None else 0,
    )
