"""Command line options, and the `Plan` that they describe."""

import argparse
import dataclasses
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import msgspec

from marketfeed_service.errors import SettingsError
from marketfeed_simulator import faults, recording
from marketfeed_simulator.instruments import STATUSES, Instrument, instrument, invented
from marketfeed_simulator.market import GeneratedMarket, Rates
from marketfeed_simulator.server import Plan
from marketfeed_simulator.venue import VENUES, Venue

_EPILOG: Final = """\
exit codes: 0 stopped by a signal; 1 the port cannot be bound; 2 invalid arguments, recording or scenario

examples:
  marketfeed-simulator --port 9443 generate --symbols BTCUSDT,ETHUSDT --trade-rate 20 --quote-rate 100
  marketfeed-simulator --port 0 --port-file port.txt replay recording.frames.gz --speed max
  curl -X POST localhost:9443/control/faults -d '{"fault": "cut", "lose_frames": 500}'

simulator/README.md describes the control endpoints, the ledger and every fault.
"""


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    top = argparse.ArgumentParser(
        prog="marketfeed-simulator",
        description="A Binance-compatible venue: WebSocket streams, REST and faults on one port.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument(
        "--host",
        default="127.0.0.1",
        help="address to listen on; :: for all IPv4 and IPv6 addresses [%(default)s]",
    )
    top.add_argument(
        "--port", type=_port, default=0, help="port to listen on; 0 for any free port [%(default)s]"
    )
    top.add_argument("--port-file", default="", metavar="FILE", help="file to write the bound port to")
    top.add_argument(
        "--venue", choices=sorted(VENUES), default="binance_us", help="venue to simulate [%(default)s]"
    )
    top.add_argument("--scenario", type=Path, metavar="FILE", help="faults to set at start (YAML or JSON)")
    top.add_argument(
        "--log-level", choices=("DEBUG", "INFO", "WARNING", "ERROR"), default="INFO", help="[%(default)s]"
    )
    top.add_argument("--log-format", choices=("text", "json"), default="text", help="[%(default)s]")
    _add_rules(top)
    _add_sources(top)
    return top


def _add_rules(top: argparse.ArgumentParser) -> None:
    rules = top.add_argument_group("the venue's rules (default: as documented for --venue)")
    rules.add_argument(
        "--ping-interval-seconds", type=_positive, metavar="SECONDS", help="interval of the server's pings"
    )
    rules.add_argument(
        "--pong-deadline-seconds",
        type=_positive,
        metavar="SECONDS",
        help="time from an unanswered ping to the close of the connection",
    )
    rules.add_argument(
        "--life-seconds", type=_positive, metavar="SECONDS", help="maximum age of a connection [86400]"
    )
    rules.add_argument(
        "--shutdown-notice-seconds",
        type=_positive,
        metavar="SECONDS",
        help="time from serverShutdown to that age [binance: 600]",
    )
    rules.add_argument("--weight-limit", type=_count, metavar="N", help="REST weight per minute")
    rules.add_argument("--request-limit", type=_count, metavar="N", help="REST requests per five minutes")
    rules.add_argument(
        "--ban-seconds",
        type=_positive,
        metavar="SECONDS",
        help="duration of the first ban after ignored 429s; doubles each time [120]",
    )
    rules.add_argument(
        "--attempts", type=_count, metavar="N", help="connection attempts per five minutes [300]"
    )
    rules.add_argument(
        "--messages-per-second", type=_count, metavar="N", help="messages per second from a client [5]"
    )
    rules.add_argument(
        "--most-buffered-bytes",
        type=_count,
        default=64 << 20,
        metavar="N",
        help="write buffer above which a slow client is disconnected; paced speeds only [%(default)s]",
    )
    rules.add_argument(
        "--listed",
        action="append",
        default=[],
        metavar="SYMBOL=STATUS",
        help=f"additional listed symbol without a market; STATUS is one of {', '.join(STATUSES)}. Repeatable",
    )
    rules.add_argument(
        "--exchange-info",
        type=Path,
        metavar="FILE",
        help="saved exchangeInfo response whose symbols are listed as well",
    )


def _add_sources(top: argparse.ArgumentParser) -> None:
    pace = argparse.ArgumentParser(add_help=False)
    pace.add_argument(
        "--speed",
        type=_speed,
        default=1.0,
        metavar="1|N|max",
        help="seconds of market time per second, or max: as fast as the slowest client reads [1]",
    )
    pace.add_argument(
        "--wait-for-subscribers",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="begin when each trade and bookTicker stream has a subscriber; at speed max also stop while there is "
        "none [on at speed max, else off]",
    )
    pace.add_argument(
        "--exit-when-finished", action="store_true", help="exit after the last frame instead of staying up"
    )
    sources = top.add_subparsers(dest="source", required=True, metavar="generate|replay")
    generate = sources.add_parser("generate", parents=[pace], help="market generated from a seed")
    generate.add_argument(
        "--symbols",
        default="BTCUSDT,ETHUSDT",
        metavar="N|A,B,C",
        help="number of symbols, or their names [%(default)s]",
    )
    generate.add_argument(
        "--trade-rate", type=_rate, default=5.0, metavar="R", help="trades per second and symbol [5]"
    )
    generate.add_argument(
        "--quote-rate", type=_rate, default=20.0, metavar="R", help="quotes per second and symbol [20]"
    )
    generate.add_argument(
        "--rates",
        action="append",
        default=[],
        metavar="SYMBOL=TRADES,QUOTES",
        help="rates of one of the symbols. Repeatable",
    )
    generate.add_argument(
        "--seed", type=int, default=1, help="seed; equal seeds give equal markets [%(default)s]"
    )
    generate.add_argument(
        "--start-us", type=_count, metavar="T", help="the market's start time in microseconds [now]"
    )
    generate.add_argument(
        "--market-seconds", type=_positive, metavar="S", help="duration of the market [no end]"
    )
    generate.add_argument("--agg-trades", action="store_true", help="generate aggTrade streams as well")
    generate.add_argument(
        "--keep-trades",
        type=_count,
        default=100_000,
        metavar="N",
        help="trades per symbol in the REST history [%(default)s]",
    )
    replay = sources.add_parser("replay", parents=[pace], help="replay of a recording, frame by frame")
    replay.add_argument(
        "file",
        type=Path,
        metavar="FILE",
        help="recording, plain or gzip; each line: time in ns, space, frame",
    )


def plan_of(options: argparse.Namespace) -> Plan:
    """Return the plan for `options`. Reads the recording, the scenario and the exchangeInfo file.

    Raises:
        SettingsError: a file or an option is invalid.
    """
    venue = _venue(options)
    scenario = faults.read_scenario(options.scenario) if options.scenario else []
    source: GeneratedMarket | recording.Replay
    if options.source == "generate":
        markets = _markets(options)
        source = GeneratedMarket(
            markets,
            seed=options.seed,
            start_us=options.start_us or time.time_ns() // 1000,
            duration_us=int(options.market_seconds * 1e6) if options.market_seconds else None,
            order_ids=venue.order_ids,
            aggregates=options.agg_trades,
        )
        instruments = {listed.symbol: listed for listed, _ in markets}
    else:
        source = recording.Replay(options.file, recording.scan(options.file))
        instruments = {symbol: instrument(symbol) for symbol in source.summary.symbols}
    instruments = {**dict(_listed(text) for text in options.listed), **instruments}
    wait = options.wait_for_subscribers
    return Plan(
        venue=venue,
        source=source,
        instruments=instruments,
        speed=options.speed,
        wait=options.speed is None if wait is None else wait,
        keep_trades=options.keep_trades if options.source == "generate" else 0,
        most_buffered_bytes=options.most_buffered_bytes,
        recorded_info=_recorded_info(options.exchange_info),
        scenario=scenario,
    )


def _venue(options: argparse.Namespace) -> Venue:
    names = {field.name for field in dataclasses.fields(Venue)}
    changed = {name: value for name, value in vars(options).items() if name in names and value is not None}
    return dataclasses.replace(VENUES[options.venue], **changed)


def _markets(options: argparse.Namespace) -> list[tuple[Instrument, Rates]]:
    text = options.symbols
    symbols = invented(int(text)) if text.isdigit() else [name for name in text.upper().split(",") if name]
    if not symbols:
        raise SettingsError(
            f"--symbols {text!r} contains no symbol: give a number above 0, or names such as BTCUSDT"
        )
    rates = dict.fromkeys(symbols, Rates(options.trade_rate, options.quote_rate))
    for setting in options.rates:
        symbol, _, pair = setting.partition("=")
        trades, _, quotes = pair.partition(",")
        if symbol not in rates:
            raise SettingsError(f"--rates {setting!r}: {symbol} is not one of the symbols")
        try:
            rates[symbol] = Rates(_rate(trades), _rate(quotes))
        except argparse.ArgumentTypeError:
            raise SettingsError(
                f"--rates {setting!r} is not SYMBOL=TRADES,QUOTES, such as BTCUSDT=50,200"
            ) from None
    return [(instrument(symbol), rate) for symbol, rate in rates.items()]


def _listed(text: str) -> tuple[str, Instrument]:
    symbol, _, status = text.partition("=")
    if not symbol or status not in STATUSES:
        raise SettingsError(f"--listed {text!r} is not SYMBOL=STATUS with a status of {', '.join(STATUSES)}")
    return symbol, instrument(symbol, status=status)


class _Info(msgspec.Struct):
    symbols: list[dict[str, Any]]


def _recorded_info(path: Path | None) -> dict[str, dict[str, Any]]:
    if path is None:
        return {}
    try:
        entries = msgspec.json.decode(path.read_bytes(), type=_Info).symbols
        return {entry["symbol"]: {**entry, "status": entry["status"]} for entry in entries}
    except OSError as error:
        raise SettingsError(f"--exchange-info {path} cannot be read: {error.strerror or error}") from error
    except (msgspec.MsgspecError, KeyError) as error:
        raise SettingsError(f"--exchange-info {path} is not an exchangeInfo response: {error}") from error


def _port(text: str) -> int:
    return int(_number(text, int, lambda port: 0 <= port <= 65535, "is not a port: 0 to 65535"))


def _count(text: str) -> int:
    return int(_number(text, int, lambda number: number >= 1, "is not an integer of at least 1"))


def _positive(text: str) -> float:
    return _number(text, float, lambda number: 0 < number < math.inf, "is not a number above 0")


def _rate(text: str) -> float:
    return _number(
        text, float, lambda rate: 0 <= rate < math.inf, "is not a rate: 0 or more events per second"
    )


def _speed(text: str) -> float | None:
    return None if text == "max" else _positive(text)


def _number(text: str, cast: Callable[[str], float], fits: Callable[[float], bool], words: str) -> float:
    """Parse a number.

    Args:
        text: the argument.
        cast: int or float.
        fits: whether the number is allowed.
        words: error message after the text.

    Raises:
        ArgumentTypeError: the text is not a number or not allowed.
    """
    try:
        number = cast(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} {words}") from None
    if not fits(number):
        raise argparse.ArgumentTypeError(f"{text!r} {words}")
    return number
