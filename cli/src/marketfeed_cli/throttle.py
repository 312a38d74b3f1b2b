"""Backpressure on the simulator of a replay, so that the embedded broker does not delete unread messages.

Simulator and worker send at maximum speed, and Kafka's protocol has no backpressure from consumers to producers. The
embedded broker keeps only the newest 5 MB of each partition, so the simulator is paused (SIGSTOP) while the consumer
lag is high. A real broker does not need this.
"""

import signal
from collections.abc import Mapping
from typing import Final

from marketfeed_cli.process import Part
from marketfeed_wire.status import ConsumerStatus, WorkerStatus

MESSAGE_TABLES: Final = ("trades", "book_tickers")
MAX_LAG: Final = 10_000
"""Lag of one topic above which the simulator is paused. Uncompressed and in one partition it is 2.5 MB, and as much may
be added between two polls."""
RESUME_LAG: Final = 2_000


class Throttle:
    """Pauses and resumes the simulator.

    Attributes:
        paused: Whether the simulator is paused.
    """

    def __init__(self, simulator: Part) -> None:
        self.paused = False
        self._simulator = simulator

    def adjust(self, worker: WorkerStatus, consumers: Mapping[str, ConsumerStatus]) -> None:
        """Pause or resume the simulator by the consumer lag."""
        lag = max_lag(worker, consumers)
        if lag > MAX_LAG and not self.paused:
            self._simulator.signal(signal.SIGSTOP)
            self.paused = True
        elif lag < RESUME_LAG:
            self.resume()

    def resume(self) -> None:
        """Resume the simulator if it is paused."""
        if self.paused:
            self._simulator.signal(signal.SIGCONT)
            self.paused = False


def max_lag(worker: WorkerStatus, consumers: Mapping[str, ConsumerStatus]) -> int:
    """Return the highest consumer lag of a topic in messages."""
    return max(
        (worker.acknowledged.get(topic, 0) - processed(status) for topic, status in consumers.items()),
        default=0,
    )


def processed(consumer: ConsumerStatus) -> int:
    """Return the number of trades or quotes that were stored, skipped as duplicates, or dead-lettered."""
    stored = sum(
        consumer.inserted.get(table, 0) + consumer.duplicates.get(table, 0) for table in MESSAGE_TABLES
    )
    return stored + consumer.dead_letters
