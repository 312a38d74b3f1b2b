"""The command `marketfeed-consumer`."""

import argparse
import os
import sys

from marketfeed_chassis import logs, settings
from marketfeed_chassis.process import exit_code_of
from marketfeed_consumers import __version__, schema, service
from marketfeed_consumers.settings import ConsumerSettings, DatabaseSettings

_DESCRIPTION = """Stores what marketfeed's topics hold in PostgreSQL or CockroachDB, each message exactly once.

Exit codes: 0 stopped when asked to, 1 something it needs is out of reach or refuses it, 2 wrong settings."""


def parser() -> argparse.ArgumentParser:
    """The command line; every setting of `run` is an environment variable and listed at the end of its help."""
    top = settings.parser("marketfeed-consumer", _DESCRIPTION, ConsumerSettings)
    top.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = top.add_subparsers(dest="command", metavar="{run,migrate}")
    commands.add_parser("run", help="store until stopped (the default)")
    commands.add_parser(
        "migrate", help="bring the database's schema to this release's version (DATABASE_URL)"
    )
    return top


def main() -> None:
    """Entry point."""
    arguments = parser().parse_args()
    sys.exit(exit_code_of(_COMMANDS[arguments.command or "run"]))


def _run() -> int:
    return service.run(settings.read(ConsumerSettings, os.environ))


def _migrate() -> int:
    read = settings.read(DatabaseSettings, os.environ)
    logs.configure(read.log_level, read.log_format)
    before, after = schema.migrate(read.database_url.get_secret_value(), read.start_deadline_seconds)
    if before == after:
        print(f"the schema is at version {after} already")
    else:
        print(f"the schema was at version {before or 'none'} and is at {after} now")
    return 0


_COMMANDS = {"run": _run, "migrate": _migrate}

if __name__ == "__main__":
    main()
