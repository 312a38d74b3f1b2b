"""What the parts of a pipeline share."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from marketfeed_wire import Trade
from marketfeed_workers.counters import Counters
from marketfeed_workers.kafka.delivery_report import Record
from marketfeed_workers.kafka.publisher import Publisher
from marketfeed_workers.stream.back_pressure import BackPressure
from marketfeed_workers.stream.gap_publisher import GapPublisher
from marketfeed_workers.stream.symbol_flow import SymbolFlow
from marketfeed_workers.venues.clock import VenueClock

ProcessTrade: TypeAlias = Callable[
    [SymbolFlow, Trade, list[Record], dict[str, int], dict[str, SymbolFlow], int, int], None
]
"""Processes a trade that is not simply the next one; see `Pipeline`."""


@dataclass(frozen=True, slots=True)
class StreamParts:
    """What the parts of a pipeline share.

    Attributes:
        venue: name of the venue.
        contiguous: whether trade ids are contiguous.
        flows: the assigned symbols.
        publisher: publisher of the records.
        counters: counters of the worker.
        clock: the venue's clock.
        now_us: wall clock.
        monotonic: monotonic clock.
        gaps: publisher of gap records.
        reads: pauses reading.
        due: work deferred out of delivery callbacks, which must not produce.
    """

    venue: str
    contiguous: bool
    flows: dict[str, SymbolFlow]
    publisher: Publisher
    counters: Counters
    clock: VenueClock
    now_us: Callable[[], int]
    monotonic: Callable[[], float]
    gaps: GapPublisher
    reads: BackPressure
    due: list[Callable[[], None]]
