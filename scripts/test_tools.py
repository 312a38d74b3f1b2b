#!/usr/bin/env python3
"""Download or build the tools that tests need beyond Python, once, into the cache.

    kafka        Apache Kafka, by Maven
    prometheus   Prometheus and promtool, by apt
    kubernetes   the Kubernetes control plane, by Go
    charts       helm and the validators of the charts, by Go
    e2e          the executables of a kind cluster's nodes and of the compose stack, by Go
    images       third-party images of compose and kind; starts a Docker engine (make e2e-down stops it)

Tools that cannot be built on this machine are reported and skipped; the tests then skip or fail.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

ROOT = Path(__file__).parents[1]
sys.path += [
    str(ROOT / folder)
    for folder in (
        "tests/integration",
        "operator/tests",
        "tests/charts",
        "tests/e2e/images",
        "tests/e2e/kind",
    )
]

import build_images  # noqa: E402 - in the path appended above
import charts_tools  # noqa: E402
import docker_engine  # noqa: E402
import images_recipes  # noqa: E402
import integration_kafka  # noqa: E402
import kind_cluster  # noqa: E402
import kind_programs  # noqa: E402
import operator_control_plane  # noqa: E402

from marketfeed_devtools.programs import Unavailable  # noqa: E402
from marketfeed_monitoring import prometheus  # noqa: E402


def _e2e() -> str:
    programs = kind_programs.build(kind_programs.ALL)
    docker_engine.compose_plugin()
    return f"{', '.join(programs)}, docker-compose"


def _images() -> str:
    docker_engine.start()
    made = [build_images.provide(name) for name in images_recipes.RECIPES]
    return ", ".join([*made, kind_cluster.node_image()])


TOOLS: Final[dict[str, Callable[[], object]]] = {
    "kafka": integration_kafka.libraries,
    "prometheus": lambda: prometheus.programs().promtool.parent,
    "kubernetes": operator_control_plane.find_programs,
    "charts": lambda: charts_tools.find_tools().folder,
    "e2e": _e2e,
    "images": _images,
}
DEFAULT: Final = ("kafka", "prometheus", "kubernetes", "charts")


def main() -> None:
    """Prepare the given tools; a failed download or build raises its own error."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"tool [{' '.join(DEFAULT)}]")
    names = parser.parse_args().names or DEFAULT
    if unknown := sorted(set(names) - TOOLS.keys()):
        parser.error(f"unknown tool: {', '.join(unknown)}; allowed: {', '.join(TOOLS)}")
    for name in names:
        try:
            print(f"{name}: {TOOLS[name]()}", flush=True)
        except Unavailable as reason:
            print(f"{name}: skipped: {reason}", flush=True)


if __name__ == "__main__":
    main()
