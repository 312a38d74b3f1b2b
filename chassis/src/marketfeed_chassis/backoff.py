"""Delays between attempts: capped exponential growth with full jitter."""

import random
from collections.abc import Iterator


def delays(first_seconds: float, cap_seconds: float, chance: random.Random) -> Iterator[float]:
    """Endless delays in seconds, uniform between 0 and a bound that doubles from `first_seconds` to `cap_seconds`.

    Full jitter keeps a fleet that lost the same peer at the same moment from coming back in step
    (https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/).
    """
    bound = min(first_seconds, cap_seconds)
    while True:
        yield chance.uniform(0, bound)
        bound = min(cap_seconds, bound * 2)
