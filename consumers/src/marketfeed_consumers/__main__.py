"""The command `marketfeed-consumer`."""

import argparse
import os
import sys

from marketfeed_consumers import __version__, service
from marketfeed_consumers.admin import commands
from marketfeed_consumers.settings import ConsumerSettings
from marketfeed_service import settings
from marketfeed_service.process import exit_code_of

_DESCRIPTION = """Stores what marketfeed's topics hold in PostgreSQL or CockroachDB, each message exactly once.

Exit codes: 0 done or stopped when asked to, 1 something it needs is out of reach or refuses it, 2 wrong settings,
3 (retain) done, but for rows whose times cannot be."""


def parser() -> argparse.ArgumentParser:
    """The command line; every setting of `run` is an environment variable and listed at the end of its help."""
    top = settings.parser("marketfeed-consumer", _DESCRIPTION, ConsumerSettings)
    top.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    names = top.add_subparsers(dest="command", metavar="command")
    names.add_parser("run", help="store until stopped (the default)")
    names.add_parser("migrate", help="bring the database's schema to this release's version (DATABASE_URL)")
    commands.add_arguments(names)
    return top


def main() -> None:
    """Entry point."""
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
