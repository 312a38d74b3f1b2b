"""Delays between attempts: capped exponential growth with full jitter.

A module of its own, as all services share it.
"""

import random
from collections.abc import Iterator


def delays(first_seconds: float, cap_seconds: float, rng: random.Random) -> Iterator[float]:
    """Yield delays in seconds without end, uniform between 0 and a bound.

    Full jitter keeps clients that lost the same peer at the same moment from reconnecting at the same time
    (https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/).

    Args:
        first_seconds: the first bound, which doubles after each delay.
        cap_seconds: the maximum of the bound.
        rng: random number generator.
    """
    bound = min(first_seconds, cap_seconds)
    while True:
        yield rng.uniform(0, bound)
        bound = min(cap_seconds, bound * 2)
