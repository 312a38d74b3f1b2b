"""Parts shared by the connections of a worker; `worker` creates them once.

A module of its own, as pool and connections share it.
"""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from marketfeed_service import backoff
from marketfeed_workers.connection.transports.socket import OpenSocket
from marketfeed_workers.connection.warm_up import StreamStates
from marketfeed_workers.counters import Counters
from marketfeed_workers.rate_limit import AttemptBudget
from marketfeed_workers.settings import WorkerSettings
from marketfeed_workers.stream.pipeline import Pipeline
from marketfeed_workers.venues.venue import Venue

FIRST_DELAY_SECONDS: Final = 0.25
MAX_DELAY_SECONDS: Final = 30.0


@dataclass(frozen=True, kw_only=True)
class ConnectionParts:
    """Parts shared by the connections of a worker."""

    venue: Venue
    settings: WorkerSettings
    open_socket: OpenSocket
    pipeline: Pipeline
    counters: Counters
    attempts: AttemptBudget
    streams: StreamStates
    now_us: Callable[[], int]
    monotonic: Callable[[], float]
    rng: random.Random

    def new_delays(self) -> Iterator[float]:
        """Return the delays between attempts to connect, from the first one."""
        return backoff.delays(FIRST_DELAY_SECONDS, MAX_DELAY_SECONDS, self.rng)
