"""Keeps a replay from running away from the embedded broker, which forgets what it cannot hold.

The simulator sends as fast as the worker reads, the worker as fast as the broker takes it, and nothing in the protocol
lets a consumer slow them down. The embedded broker keeps only the newest 5 MB of each partition, so the venue stands
still (SIGSTOP) while the consumers are far behind. With a real broker nothing of this is needed.
"""

import signal
from collections.abc import Mapping
from typing import Final

from marketfeed_cli.process import Part
from marketfeed_wire.status import ConsumerStatus, WorkerStatus

MESSAGE_TABLES: Final = ("trades", "book_tickers")
MOST_BEHIND: Final = 10_000
"""Messages of one topic. Uncompressed and all in one partition they are 2.5 MB, and as much may come while we look."""
LEAST_BEHIND: Final = 2_000


class Brake:
    """Stops and continues the simulator.

    Attributes:
        pulled: whether it stands still now.
    """

    def __init__(self, simulator: Part) -> None:
        self.pulled = False
        self._simulator = simulator

    def adjust(self, worker: WorkerStatus, consumers: Mapping[str, ConsumerStatus]) -> None:
        """Look at how far the consumers are behind, and pull or release."""
        most = behind(worker, consumers)
        if most > MOST_BEHIND and not self.pulled:
            self._simulator.signal(signal.SIGSTOP)
            self.pulled = True
        elif most < LEAST_BEHIND:
            self.release()

    def release(self) -> None:
        """Let the simulator go on."""
        if self.pulled:
            self._simulator.signal(signal.SIGCONT)
            self.pulled = False


def behind(worker: WorkerStatus, consumers: Mapping[str, ConsumerStatus]) -> int:
    """Messages in Kafka that are not stored yet, of the topic that has most of them."""
    return max(
        (worker.acknowledged.get(topic, 0) - handled(status) for topic, status in consumers.items()),
        default=0,
    )


def handled(consumer: ConsumerStatus) -> int:
    """Trades or quotes that their consumer is done with: stored, stored before, or dead letters."""
    stored = sum(
        consumer.inserted.get(table, 0) + consumer.duplicates.get(table, 0) for table in MESSAGE_TABLES
    )
    return stored + consumer.dead_letters
