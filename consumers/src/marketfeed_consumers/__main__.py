"""The command `marketfeed-consumer`."""

import argparse
import os
import sys

from marketfeed_consumers import __version__, service
from marketfeed_consumers.admin import commands
from marketfeed_consumers.settings import ConsumerSettings
from marketfeed_service import settings
from marketfeed_service.process import exit_code_of

_DESCRIPTION = """Stores the messages of marketfeed's topics in PostgreSQL or CockroachDB, each exactly once.

Exit codes: 0 done, or stopped by a signal; 1 a dependency is unreachable or rejects the consumer; 2 invalid settings;
3 (retain) done, except for rows with impossible times."""


def parser() -> argparse.ArgumentParser:
    """Return the argument parser; its help lists the environment variables of `run`."""
    top = settings.parser("marketfeed-consumer", _DESCRIPTION, ConsumerSettings)
    top.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    names = top.add_subparsers(dest="command", metavar="command")
    names.add_parser("run", help="consume and store until stopped (the default)")
    names.add_parser("migrate", help="migrate the database's schema to this release's version (DATABASE_URL)")
    commands.add_arguments(names)
    return top


def main() -> None:
    """Run the command line."""
    arguments = parser().parse_args()
    sys.exit(exit_code_of(lambda: _dispatch(arguments)))


def _dispatch(arguments: argparse.Namespace) -> int:
    match arguments.command:
        case "migrate":
            return commands.migrate()
        case "rebuild":
            return commands.rebuild_table(arguments)
        case "retain":
            return commands.retain(arguments)
        case "reset-offsets":
            return commands.reset_offsets(arguments)
    return service.run(settings.read(ConsumerSettings, os.environ))


if __name__ == "__main__":
    main()
