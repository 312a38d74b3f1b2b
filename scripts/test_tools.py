#!/usr/bin/env python3
"""What the tests need beyond Python, fetched or built once into the cache, before the tests start and are timed.

Apache Kafka by Maven; the Kubernetes control plane, and helm with what checks the charts, by Go. What this machine
lacks the tools for is said and left out; whether that skips tests or fails them is for the tests to say.
"""

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path += [str(ROOT / "tests/integration"), str(ROOT / "operator/tests"), str(ROOT / "tests/charts")]

import charts_tools  # noqa: E402 - found through the line above
import integration_kafka  # noqa: E402 - found through the line above
import operator_control_plane  # noqa: E402

from marketfeed_devtools.programs import Unavailable  # noqa: E402
from marketfeed_monitoring import prometheus  # noqa: E402


def main() -> None:
    """Prepare each; a failed fetch or build ends with its own error."""
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    for name, find in (
        ("Apache Kafka", integration_kafka.libraries),
        ("Kubernetes control plane", operator_control_plane.find_programs),
        ("helm, helm-unittest, kubeconform", lambda: charts_tools.find_tools().folder),
        ("Prometheus and promtool", lambda: prometheus.programs().promtool.parent),
    ):
        try:
            print(f"{name}: {find()}", flush=True)
        except Unavailable as reason:
            print(f"{name}: left out: {reason}", flush=True)


if __name__ == "__main__":
    main()
