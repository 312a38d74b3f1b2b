"""The command line: its options, and what they come to."""

import argparse
import dataclasses
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import msgspec

from marketfeed_chassis.errors import SettingsError
from marketfeed_simulator import faults, recording
from marketfeed_simulator.instruments import STATUSES, Instrument, instrument, invented
from marketfeed_simulator.market import GeneratedMarket, Rates
from marketfeed_simulator.server import Plan
from marketfeed_simulator.venue import VENUES, Venue

_EPILOG: Final = """\
exit codes: 0 stopped by a signal; 1 the port cannot be taken; 2 wrong arguments, recording or scenario

examples:
  marketfeed-simulator --port 9443 generate --symbols BTCUSDT,ETHUSDT --trade-rate 20 --quote-rate 100
  marketfeed-simulator --port 0 --port-file port.txt replay recording.frames.gz --speed max
  curl -X POST localhost:9443/control/faults -d '{"fault": "cut", "lose_frames": 500}'

The control endpoints, the ledger and every fault are described in simulator/README.md.
"""


def parser() -> argparse.ArgumentParser:
    """The parser of the command line."""
    top = argparse.ArgumentParser(
        prog="marketfeed-simulator",
        description="A Binance-compatible venue: WebSocket streams, REST and faults on one port.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument(
        "--host",
        default="127.0.0.1",
        help="address to listen on, :: for every IPv4 and IPv6 address [%(default)s]",
    )
    top.add_argument(
        "--port", type=_port, default=0, help="port to listen on; 0 takes a free one [%(default)s]"
    )
    top.add_argument(
        "--port-file", default="", metavar="FILE", help="write the port that was taken into this file"
    )
    top.add_argument(
        "--venue", choices=sorted(VENUES), default="binance_us", help="whose rules to play by [%(default)s]"
    )
    top.add_argument(
        "--scenario", type=Path, metavar="FILE", help="faults to set at the start (YAML or JSON)"
    )
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
        "--ping-interval-seconds", type=_positive, metavar="SECONDS", help="from one server ping to the next"
    )
    rules.add_argument(
        "--pong-deadline-seconds",
        type=_positive,
        metavar="SECONDS",
        help="from a ping without pong to the connection's end",
    )
    rules.add_argument(
        "--life-seconds", type=_positive, metavar="SECONDS", help="how long a connection may last [86400]"
    )
    rules.add_argument(
        "--shutdown-notice-seconds",
        type=_positive,
        metavar="SECONDS",
        help="serverShutdown so long before that [binance: 600]",
    )
    rules.add_argument("--weight-limit", type=_count, metavar="N", help="REST weight a minute")
    rules.add_argument("--request-limit", type=_count, metavar="N", help="REST requests in five minutes")
    rules.add_argument(
        "--ban-seconds",
        type=_positive,
        metavar="SECONDS",
        help="the first ban after ignored 429s; doubles each time [120]",
    )
    rules.add_argument(
        "--attempts", type=_count, metavar="N", help="connection attempts in five minutes [300]"
    )
    rules.add_argument("--messages-per-second", type=_count, metavar="N", help="messages of a client [5]")
    rules.add_argument(
        "--most-buffered-bytes",
        type=_count,
        default=64 << 20,
        metavar="N",
        help="paced: a client with more than this waiting unread is cut [%(default)s]",
    )
    rules.add_argument(
        "--listed",
        action="append",
        default=[],
        metavar="SYMBOL=STATUS",
        help=f"list one more symbol, without a market; STATUS is one of {', '.join(STATUSES)}. Repeatable",
    )
    rules.add_argument(
        "--exchange-info",
        type=Path,
        metavar="FILE",
        help="list the symbols of a saved exchangeInfo answer as well",
    )


def _add_sources(top: argparse.ArgumentParser) -> None:
    pace = argparse.ArgumentParser(add_help=False)
    pace.add_argument(
        "--speed",
        type=_speed,
        default=1.0,
        metavar="1|N|max",
        help="the market's seconds to one of ours, or max: as fast as the slowest client reads [1]",
    )
    pace.add_argument(
        "--wait-for-subscribers",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="begin when each trade and bookTicker stream has a subscriber; at speed max also stand still while "
        "there is none [on at speed max, else off]",
    )
    pace.add_argument(
        "--exit-when-finished", action="store_true", help="exit after the last frame instead of staying up"
    )
    sources = top.add_subparsers(dest="source", required=True, metavar="generate|replay")
    generate = sources.add_parser("generate", parents=[pace], help="a market made from a seed")
    generate.add_argument(
        "--symbols",
        default="BTCUSDT,ETHUSDT",
        metavar="N|A,B,C",
        help="how many symbols, or which [%(default)s]",
    )
    generate.add_argument(
        "--trade-rate", type=_rate, default=5.0, metavar="R", help="trades a second and symbol [5]"
    )
    generate.add_argument(
        "--quote-rate", type=_rate, default=20.0, metavar="R", help="quotes a second and symbol [20]"
    )
    generate.add_argument(
        "--rates",
        action="append",
        default=[],
        metavar="SYMBOL=TRADES,QUOTES",
        help="other rates for one of the symbols. Repeatable",
    )
    generate.add_argument("--seed", type=int, default=1, help="equal seeds make equal markets [%(default)s]")
    generate.add_argument("--start-us", type=_count, metavar="T", help="the market's first microsecond [now]")
    generate.add_argument(
        "--market-seconds", type=_positive, metavar="S", help="how long it lasts [for ever]"
    )
    generate.add_argument("--agg-trades", action="store_true", help="make aggTrade streams as well")
    generate.add_argument(
        "--keep-trades",
        type=_count,
        default=100_000,
        metavar="N",
        help="trades a symbol that REST remembers [%(default)s]",
    )
    replay = sources.add_parser("replay", parents=[pace], help="a recording, frame by frame as it was")
    replay.add_argument(
        "file", type=Path, metavar="FILE", help="plain or gzip; a line: time in ns, space, frame"
    )


def plan_of(options: argparse.Namespace) -> Plan:
    """What `options` ask for. Reads the recording, the scenario and the exchangeInfo file.

    Raises:
        SettingsError: one of them, or an option, cannot be used.
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
            f"--symbols {text!r} names no symbol: give a number above 0, or names such as BTCUSDT"
        )
    rates = dict.fromkeys(symbols, Rates(options.trade_rate, options.quote_rate))
    for setting in options.rates:
        symbol, _, pair = setting.partition("=")
        trades, _, quotes = pair.partition(",")
        if symbol not in rates:
            raise SettingsError(f"--rates {setting!r}: {symbol} is none of the symbols")
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
        raise SettingsError(f"--exchange-info {path} is no exchangeInfo answer: {error}") from error


def _port(text: str) -> int:
    return int(_number(text, int, lambda port: 0 <= port <= 65535, "is no port: 0 to 65535"))


def _count(text: str) -> int:
    return int(_number(text, int, lambda number: number >= 1, "is no whole number of at least 1"))


def _positive(text: str) -> float:
    return _number(text, float, lambda number: 0 < number < math.inf, "is no number above 0")


def _rate(text: str) -> float:
    return _number(text, float, lambda rate: 0 <= rate < math.inf, "is no rate: 0 or more events a second")


def _speed(text: str) -> float | None:
    return None if text == "max" else _positive(text)


def _number(text: str, cast: Callable[[str], float], fits: Callable[[float], bool], words: str) -> float:
    """The number in `text`.

    Raises:
        ArgumentTypeError: it is none, or does not fit; argparse shows the text and `words`.
    """
    try:
        number = cast(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} {words}") from None
    if not fits(number):
        raise argparse.ArgumentTypeError(f"{text!r} {words}")
    return number
