"""Parser of a pod's /status. All values are limited to the bounds of a MarketFeed's status.

A pod may be created by anyone: a number that the CRD refuses, a time out of range or a string with control characters
must affect only this report.
"""

from typing import Final

import msgspec

from marketfeed_operator.names import INGESTION
from marketfeed_operator.observed import PodReport
from marketfeed_operator.text import printable
from marketfeed_wire.status import ConsumerStatus, WorkerStatus

MAX_BYTES: Final = 4 * 2**20
MAX_COUNT: Final = 2**53
"""The sum of some thousand of these fits the 64 bits of a status integer."""
MAX_REFUSED: Final = 5_000
MAX_TIME_US: Final = 253_402_300_799_000_000
"""Last second of the year 9999."""
_HASH: Final = frozenset("0123456789abcdef")


def report_of(component: str, body: bytes) -> PodReport:
    """Return the report in a /status body.

    Raises:
        ValueError, RecursionError: the body is invalid.
    """
    if component == INGESTION:
        return _of_worker(msgspec.json.decode(body, type=WorkerStatus))
    return _of_consumer(msgspec.json.decode(body, type=ConsumerStatus))


def _of_worker(worker: WorkerStatus) -> PodReport:
    times = [
        seen.last_trade_time_us
        for seen in worker.symbols.values()
        if seen.last_trade_time_us is not None and 0 <= seen.last_trade_time_us <= MAX_TIME_US
    ]
    refused = sorted(worker.refused_symbols.items())[:MAX_REFUSED]
    return PodReport(
        assignment=worker.assignment if _is_hash(worker.assignment) else "",
        last_trade_time_us=max(times, default=None),
        missing_trades=_count(sum(_count(seen.missing) for seen in worker.symbols.values())),
        refused={symbol: printable(why, 100) for symbol, why in refused},
        reason=printable(worker.reason, 200),
    )


def _of_consumer(consumer: ConsumerStatus) -> PodReport:
    behind = [
        _count(partition.end_offset - partition.next_offset)
        for partition in consumer.partitions
        if partition.end_offset is not None
    ]
    return PodReport(lag=_count(sum(behind)) if behind else None, reason=printable(consumer.reason, 200))


def _count(number: int) -> int:
    return min(max(0, number), MAX_COUNT)


def _is_hash(text: str) -> bool:
    return len(text) <= 16 and _HASH.issuperset(text)
