#!/usr/bin/env python3
"""Chaos tests of the consumer with hundreds of seeds: kills at every failpoint, and random schedules of two owners.

    MARKETFEED_CHAOS_SEEDS=300 python scripts/chaos.py [pytest's options, such as -k killed or -x]

Kafka is the broker in MARKETFEED_KAFKA_BROKER, otherwise Apache Kafka if Java and Maven are installed, otherwise
librdkafka's mock cluster. Set MARKETFEED_CHAOS_FIRST_SEED=N MARKETFEED_CHAOS_SEEDS=1 to run a failed seed alone.
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
    """Run pytest over the seeds; return its exit code."""
    if {"-h", "--help"} & set(sys.argv[1:]):
        print(__doc__)
        return 0
    environment = {"MARKETFEED_CHAOS_SEEDS": DEFAULT_SEEDS, **os.environ}
    with ExitStack() as stack:
        if not environment.get("MARKETFEED_KAFKA_BROKER"):
            environment["MARKETFEED_KAFKA_BROKER"] = _kafka(stack)
        broker = (
            environment["MARKETFEED_KAFKA_BROKER"]
            or "librdkafka's mock cluster (Java and Maven are not installed)"
        )
        first = environment.get("MARKETFEED_CHAOS_FIRST_SEED", "0")
        print(
            f"{environment['MARKETFEED_CHAOS_SEEDS']} seeds, starting at {first}; Kafka: {broker}", flush=True
        )
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
    """Start a broker and return its address; "" without Java."""
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
