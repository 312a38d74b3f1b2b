"""Command `marketfeed-monitoring FOLDER`: write dashboards and rules to a chart's files, or check them."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from marketfeed_monitoring import generate


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command; exits with 1 if `--check` finds outdated files."""
    parser = argparse.ArgumentParser(
        prog="marketfeed-monitoring",
        description="Write Grafana dashboards (dashboards/*.json) and Prometheus rules (rules/*.yaml) to FOLDER.",
    )
    parser.add_argument("folder", metavar="FOLDER", type=Path, help="such as charts/marketfeed/files")
    parser.add_argument("--check", action="store_true", help="write nothing; list outdated files")
    given = parser.parse_args(arguments)
    if not given.check:
        generate.write(given.folder)
        return
    if wrong := generate.outdated(given.folder):
        sys.exit("\n".join(f"{file} is outdated: run make generate" for file in wrong))


if __name__ == "__main__":
    main()
