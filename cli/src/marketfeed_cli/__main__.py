"""The command ``marketfeed``."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from marketfeed_chassis.process import exit_code_of

_DESCRIPTION: Final = """\
Trades and quotes from a venue's WebSockets through Kafka into PostgreSQL, with proof that none is missing.
"""
_OWN_PARTS: Final = """\
A Kafka broker and a PostgreSQL are started for the run, and removed with it. To use your own, set
  KAFKA_BROKER   host:port[,host:port…]; topics: MARKET_TRADES_TOPIC, MARKET_BOOK_TOPIC
  DATABASE_URL   postgresql://user:password@host:port/database
  VENUE          binance_us [default] or binance: the protocol, and the name in every row
Every other variable of the services (marketfeed-worker --help, marketfeed-consumer --help) is handed on to them.

exit codes: 0 everything is there; 1 something is missing or failed; 2 wrong options or settings; 130 Ctrl-C
"""


def main() -> None:
    """Run the command line and exit."""
    sys.exit(exit_code_of(lambda: run(sys.argv[1:])))


def run(arguments: Sequence[str]) -> int:
    """Do what `arguments` say; the exit code.

    Raises:
        ServiceError: settings that cannot be used, or a part that failed.
    """
    options = parser().parse_args(arguments)
    # Imported only now, so that --help and a wrong option answer at once.
    from marketfeed_cli import commands

    try:
        return commands.run(options, os.environ)
    except BrokenPipeError:  # the reader of our output has gone, as in `marketfeed demo | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def parser() -> argparse.ArgumentParser:
    """The parser of the command line."""
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
        "--keep", action="store_true", help="leave it running after the report and say how to reach each part"
    )
    options.add_argument(
        "--output", choices=("text", "json"), default="text", help="form of the closing report [%(default)s]"
    )
    return options


def _add_demo(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]", shared: argparse.ArgumentParser
) -> None:
    demo = commands.add_parser(
        "demo",
        parents=[shared],
        help="the whole pipeline on this machine, live",
        description="Run venue, Kafka, worker, consumers and PostgreSQL on this machine and watch trades pass.",
        epilog=_OWN_PARTS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    demo.add_argument(
        "--source",
        type=_source,
        default="auto",
        metavar="auto|live|simulated|recording=FILE",
        help="live is Binance US; auto takes it when it can be reached and otherwise the simulator [auto]",
    )
    demo.add_argument(
        "--seconds", type=_seconds, default=30.0, metavar="N", help="how long to read the venue [30]"
    )
    demo.add_argument(
        "--symbols", type=_symbols, default=(), metavar="A,B,C", help="[BTCUSDT,ETHUSDT,SOLUSDT]"
    )


def _add_replay(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]", shared: argparse.ArgumentParser
) -> None:
    replay = commands.add_parser(
        "replay",
        parents=[shared],
        help="a recording through the whole pipeline, as fast as it goes",
        description="Run a recording through venue simulator, worker, Kafka and consumers into PostgreSQL.",
        epilog=_OWN_PARTS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    replay.add_argument(
        "file", type=Path, metavar="FILE", help="plain or gzip; a line: time in ns, space, frame"
    )


def _add_audit(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    audit = commands.add_parser(
        "audit",
        help="is everything in the database? per symbol and hour",
        description="Ask DATABASE_URL what is stored, what is missing and what the venue proved absent. "
        "Exit code 0 when no id is unresolved, 1 when one is or nothing at all is stored of what was asked for, "
        "2 when an option or setting is wrong.",
    )
    audit.add_argument("--venue", help="only this venue, such as binance_us")
    audit.add_argument("--symbol", help="only this symbol, such as BTCUSDT")
    audit.add_argument(
        "--since", type=_time_us, metavar="TIME", help="from this time on, such as 2026-01-31T12:00Z"
    )
    audit.add_argument("--until", type=_time_us, metavar="TIME", help="up to this time")
    audit.add_argument("--deep", action="store_true", help="count the rows themselves and compare")
    audit.add_argument("-o", "--output", choices=("table", "json"), default="table", help="[%(default)s]")


def _time_us(text: str) -> int:
    from marketfeed_consumers.commands import time_us

    return time_us(text)


def _add_status(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    status = commands.add_parser(
        "status",
        help="what running workers and consumers tell",
        description="Ask workers and consumers how they are. Exit code 0 when all of them are ready, otherwise 1.",
    )
    status.add_argument(
        "urls", nargs="+", metavar="URL", help="where a service's metrics are, host:port will do"
    )
    status.add_argument("--output", choices=("text", "json"), default="text", help="[%(default)s]")


def _add_validate(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    validate = commands.add_parser(
        "validate",
        help="would the worker accept these settings and symbols?",
        description="Check the worker's settings in the environment, and its symbols against what the venue lists. "
        "Exit code 0 when all is well, 1 when a symbol cannot be read, 2 when a setting is wrong.",
    )
    validate.add_argument(
        "--symbols", default="", metavar="A,B,C", help="to check [the variable BINANCE_SYMBOLS]"
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
