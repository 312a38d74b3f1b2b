"""``marketfeed-operator``: one process, configured by environment variables."""

import logging
import os
import sys

import uvloop

from marketfeed_operator.settings import OperatorSettings
from marketfeed_service import logs, settings
from marketfeed_service.process import exit_code_of


def main() -> None:
    """Run the command."""
    settings.parser(
        "marketfeed-operator",
        "Reconciles MarketFeeds into sharded ingestion Deployments and consumer StatefulSets.",
        OperatorSettings,
    ).parse_args()
    sys.exit(exit_code_of(_run))


def _run() -> int:
    chosen = settings.read(OperatorSettings, os.environ)
    logs.configure(chosen.log_level, chosen.log_format)
    settings.log_old_names(OperatorSettings, os.environ)
    # kopf logs every handler call. The operator logs its own changes instead.
    logging.getLogger("kopf").setLevel(max(logging.WARNING, logging.getLevelName(chosen.log_level)))
    # The Kubernetes client resolves the home directory on import, and fails for a container user without one.
    os.environ.setdefault("HOME", "/")
    from marketfeed_operator import service

    return uvloop.run(service.run(chosen))


if __name__ == "__main__":
    main()
