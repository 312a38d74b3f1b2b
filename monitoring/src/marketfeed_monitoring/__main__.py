"""`marketfeed-monitoring FOLDER`: writes dashboards and rules into a chart's files, or checks that they are written."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from marketfeed_monitoring import generate


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point; exit code 1 when something is outdated and only to be checked."""
    parser = argparse.ArgumentParser(
        prog="marketfeed-monitoring",
        description="Writes Grafana dashboards (dashboards/*.json) and Prometheus rules (rules/*.yaml) "
        "into FOLDER.",
    )
    parser.add_argument("folder", metavar="FOLDER", type=Path, help="such as charts/marketfeed/files")
    parser.add_argument("--check", action="store_true", help="write nothing; name what is outdated")
    given = parser.parse_args(arguments)
    if not given.check:
        generate.write(given.folder)
        return
    if wrong := generate.outdated(given.folder):
        sys.exit("\n".join(f"{file} is outdated: run make generate" for file in wrong))


if __name__ == "__main__":
    main()
