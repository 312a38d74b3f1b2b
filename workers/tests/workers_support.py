"""Shared names of the worker's tests."""

import time
from collections.abc import Callable

from marketfeed_workers.settings import WorkerSettings

MakeSettings = Callable[..., WorkerSettings]
"""Settings from variables: ``make_settings(KAFKA_ACKS="1")``."""


def now_us() -> int:
    return time.time_ns() // 1000
