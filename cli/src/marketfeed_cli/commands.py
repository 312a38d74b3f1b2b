"""Dispatch of parsed options to the commands.

A module of its own: it imports the services, which parsing of options does not need.
"""

import argparse
from collections.abc import Mapping

from marketfeed_cli import run as runs
from marketfeed_cli.audit import audit
from marketfeed_cli.interrupt import run_interruptible
from marketfeed_cli.status import status
from marketfeed_cli.validate import validate


def run(options: argparse.Namespace, environment: Mapping[str, str]) -> int:
    """Run the command in `options`; return the exit code."""
    match options.command:
        case "demo":
            shared = runs.Options(options.keep, options.output)
            return run_interruptible(
                runs.demo(shared, options.source, options.symbols, options.seconds, environment)
            )
        case "replay":
            shared = runs.Options(options.keep, options.output)
            return run_interruptible(runs.replay(shared, options.file, environment))
        case "audit":
            return audit(options, environment)
        case "status":
            return run_interruptible(status(options.urls, options.output))
        case _:
            return validate(options.symbols, environment)
