"""Names that several test files of the worker share."""

import time
from collections.abc import Callable

from marketfeed_workers.settings import WorkerSettings

MakeSettings = Callable[..., WorkerSettings]
"""Settings as from an environment, by variable: ``make_settings(KAFKA_ACKS="1")``."""


def now_us() -> int:
    return time.time_ns() // 1000
