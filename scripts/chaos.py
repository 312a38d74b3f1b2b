#!/usr/bin/env python3
"""The consumer under hundreds of seeds: killed at every named point, and under random schedules of rivals.

    MARKETFEED_CHAOS_SEEDS=300 python scripts/chaos.py [pytest's options, such as -k killed or -x]

On Apache Kafka where Java and Maven are there, or on the broker that MARKETFEED_KAFKA_BROKER names; on librdkafka's
mock cluster otherwise. A failed seed is run again alone by MARKETFEED_CHAOS_FIRST_SEED=N MARKETFEED_CHAOS_SEEDS=1.
"""

import os
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from marketfeed_devtools.programs import Unavailable

ROOT: Final = Path(__file__).parents[1]
TESTS: Final = ("consumers/tests/test_consumer_serializable.py", "consumers/tests/test_consumer_killed.py")
DEFAULT_SEEDS: Final = "200"


def main() -> int:
    """Run pytest over the seeds, one line a seed; its exit code."""
    if {"-h", "--help"} & set(sys.argv[1:]):
        print(__doc__)
        return 0
    environment = {"MARKETFEED_CHAOS_SEEDS": DEFAULT_SEEDS, **os.environ}
    with ExitStack() as stack:
        if not environment.get("MARKETFEED_KAFKA_BROKER"):
            environment["MARKETFEED_KAFKA_BROKER"] = _kafka(stack)
        broker = (
            environment["MARKETFEED_KAFKA_BROKER"] or "librdkafka's mock cluster (no Java and Maven here)"
        )
        first = environment.get("MARKETFEED_CHAOS_FIRST_SEED", "0")
        print(f"{environment['MARKETFEED_CHAOS_SEEDS']} seeds from {first} on; Kafka: {broker}", flush=True)
        began = time.monotonic()
        done = subprocess.run(  # noqa: S603 - pytest
            [sys.executable, "-m", "pytest", "-v", "--no-header", *TESTS, *sys.argv[1:]],
            cwd=ROOT,
            env=environment,
            check=False,
        )
        print(f"{time.monotonic() - began:.0f} s", flush=True)
        return done.returncode


def _kafka(stack: ExitStack) -> str:
    """A broker of this run's own; "" where there is no Java."""
    sys.path.append(str(ROOT / "tests/integration"))
    from integration_kafka import ApacheKafka, libraries

    try:
        libraries()
    except Unavailable:
        return ""
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="marketfeed-chaos-")))
    return stack.enter_context(ApacheKafka(folder)).address


if __name__ == "__main__":
    sys.exit(main())
