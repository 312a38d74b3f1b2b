"""Command line of ``marketfeed``."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from marketfeed_service.process import exit_code_of

_DESCRIPTION: Final = """\
Ingest trades and quotes from a venue's WebSockets through Kafka into PostgreSQL and verify that none is missing.
"""
_ENVIRONMENT: Final = """\
The run starts an embedded Kafka broker and PostgreSQL and removes them at the end. To use your own, set
  KAFKA_BROKER   host:port[,host:port…]; topics: MARKET_TRADES_TOPIC, MARKET_BOOK_TOPIC
  DATABASE_URL   postgresql://user:password@host:port/database
  VENUE          binance_us [default] or binance: protocol, and name of the venue in every row
All other settings of the services (marketfeed-worker --help, marketfeed-consumer --help) are passed on to them.

exit codes: 0 complete; 1 trades or quotes are missing, or a failure; 2 invalid options or settings; 130 Ctrl-C
"""


def main() -> None:
    """Run the command line and exit."""
    sys.exit(exit_code_of(lambda: run(sys.argv[1:])))


def run(arguments: Sequence[str]) -> int:
    """Run a command; return the exit code.

    Raises:
        ServiceError: A setting is invalid or a process of the run failed.
    """
    options = parser().parse_args(arguments)
    # Imported late, so that --help and invalid options respond quickly.
    from marketfeed_cli import commands

    try:
        return commands.run(options, os.environ)
    except BrokenPipeError:  # the reader closed the pipe, as in `marketfeed demo | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    top = argparse.ArgumentParser(prog="marketfeed", description=_DESCRIPTION)
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    run_options = _run_options()
    _add_demo(commands, run_options)
    _add_replay(commands, run_options)
    _add_audit(commands)
    _add_status(commands)
    _add_validate(commands)
    return top


def _run_options() -> argparse.ArgumentParser:
    options = argparse.ArgumentParser(add_help=False)
    options.add_argument(
        "--keep",
        action="store_true",
        help="keep everything running after the report and print the address of each component",
    )
    options.add_argument(
        "--output", choices=("text", "json"), default="text", help="format of the final report [%(default)s]"
    )
    return options


def _add_demo(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]", shared: argparse.ArgumentParser
) -> None:
    demo = commands.add_parser(
        "demo",
        parents=[shared],
        help="run the whole pipeline on this machine",
        description="Run venue, Kafka, worker, consumers and PostgreSQL on this machine with a live display.",
        epilog=_ENVIRONMENT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    demo.add_argument(
        "--source",
        type=_source,
        default="auto",
        metavar="auto|live|simulated|recording=FILE",
        help="live is Binance US; auto uses it if it is reachable, otherwise the simulator [auto]",
    )
    demo.add_argument("--seconds", type=_seconds, default=30.0, metavar="N", help="duration in seconds [30]")
    demo.add_argument(
        "--symbols", type=_symbols, default=(), metavar="A,B,C", help="[BTCUSDT,ETHUSDT,SOLUSDT]"
    )


def _add_replay(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]", shared: argparse.ArgumentParser
) -> None:
    replay = commands.add_parser(
        "replay",
        parents=[shared],
        help="replay a recording through the whole pipeline at maximum speed",
        description="Replay a recording through venue simulator, worker, Kafka and consumers into PostgreSQL.",
        epilog=_ENVIRONMENT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    replay.add_argument(
        "file", type=Path, metavar="FILE", help="plain or gzip; line format: time in ns, space, frame"
    )


def _add_audit(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    audit = commands.add_parser(
        "audit",
        help="verify completeness of the database by symbol and hour",
        description="Report stored, missing and absent trade ids of DATABASE_URL. "
        "Exit code 0 if no id is unresolved, 1 if an id is unresolved or no trade in the scope is stored, "
        "2 if an option or setting is invalid.",
    )
    audit.add_argument("--venue", help="limit to a venue, such as binance_us")
    audit.add_argument("--symbol", help="limit to a symbol, such as BTCUSDT")
    audit.add_argument("--since", type=_time_us, metavar="TIME", help="start time, such as 2026-01-31T12:00Z")
    audit.add_argument("--until", type=_time_us, metavar="TIME", help="end time")
    audit.add_argument("--deep", action="store_true", help="count the rows and compare")
    audit.add_argument("-o", "--output", choices=("table", "json"), default="table", help="[%(default)s]")


def _time_us(text: str) -> int:
    from marketfeed_consumers.admin.commands import time_us

    return time_us(text)


def _add_status(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    status = commands.add_parser(
        "status",
        help="show status of workers and consumers",
        description="Show the status of workers and consumers. Exit code 0 if all of them are ready, otherwise 1.",
    )
    status.add_argument(
        "urls", nargs="+", metavar="URL", help="URL or host:port of a service's metrics endpoint"
    )
    status.add_argument("--output", choices=("text", "json"), default="text", help="[%(default)s]")


def _add_validate(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    validate = commands.add_parser(
        "validate",
        help="validate the worker's configuration and symbols",
        description="Validate the worker's settings in the environment, and its symbols against the venue's list. "
        "Exit code 0 if all are valid, 1 if a symbol is not available, 2 if a setting is invalid.",
    )
    validate.add_argument(
        "--symbols", default="", metavar="A,B,C", help="symbols to validate [setting BINANCE_SYMBOLS]"
    )


def _source(text: str) -> object:
    from marketfeed_cli.market import parse_source

    try:
        return parse_source(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0
    if not 1 <= seconds <= 24 * 3600:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds from 1 to 86400")
    return seconds


def _symbols(text: str) -> tuple[str, ...]:
    from marketfeed_wire import is_name

    symbols = tuple(dict.fromkeys(part.strip().upper() for part in text.split(",") if part.strip()))
    if not symbols or not all(is_name(symbol) for symbol in symbols):
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of symbols such as BTCUSDT,ETHUSDT")
    return symbols


if __name__ == "__main__":
    main()
