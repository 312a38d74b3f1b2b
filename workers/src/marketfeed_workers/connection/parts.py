"""Parts shared by the connections of a worker; `worker` creates them once.

A module of its own, as pool and connections share it.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass

from marketfeed_workers.connection.transports.socket import OpenSocket
from marketfeed_workers.connection.warm_up import StreamStates
from marketfeed_workers.counters import Counters
from marketfeed_workers.rate_limit import AttemptBudget
from marketfeed_workers.settings import WorkerSettings
from marketfeed_workers.stream.pipeline import Pipeline
from marketfeed_workers.venues.venue import Venue


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
