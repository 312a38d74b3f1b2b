"""``marketfeed-operator``: settings from the environment, one process, until it is told to stop."""

import logging
import os
import sys

import uvloop

from marketfeed_chassis import logs, settings
from marketfeed_chassis.process import exit_code_of
from marketfeed_operator.settings import OperatorSettings


def main() -> None:
    """Entry point of the command."""
    settings.parser(
        "marketfeed-operator",
        "Turns MarketFeeds into sharded ingestion Deployments and consumer StatefulSets, and keeps them so.",
        OperatorSettings,
    ).parse_args()
    sys.exit(exit_code_of(_run))


def _run() -> int:
    chosen = settings.read(OperatorSettings, os.environ)
    logs.configure(chosen.log_level, chosen.log_format)
    # kopf tells of each handler that it calls; what we do about a feed we tell ourselves.
    logging.getLogger("kopf").setLevel(max(logging.WARNING, logging.getLevelName(chosen.log_level)))
    # The Kubernetes client looks for a home when it is imported, and ends where a container's user has none.
    os.environ.setdefault("HOME", "/")
    from marketfeed_operator import service

    return uvloop.run(service.run(chosen))


if __name__ == "__main__":
    main()
