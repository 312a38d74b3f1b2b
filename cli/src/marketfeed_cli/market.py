"""Market of a run: the live venue, a generated market of the simulator, or a recording."""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import aiohttp

from marketfeed_cli.settings import RunSettings
from marketfeed_service.errors import SettingsError, StartupError
from marketfeed_simulator import recording
from marketfeed_workers.venues.registry import VENUES

SYMBOLS: Final = ("BTCUSDT", "ETHUSDT", "SOLUSDT")
"""Default symbols of a demo."""

PROBE_SECONDS: Final = 5.0
TRADE_RATE: Final = 20
QUOTE_RATE: Final = 80

Kind = Literal["live", "generated", "recording"]


@dataclass(frozen=True)
class Source:
    """Value of the option ``--source``."""

    name: Literal["auto", "live", "simulated", "recording"]
    file: Path | None = None


@dataclass(frozen=True)
class Market:
    """Market of a run.

    Attributes:
        title: Name for the output.
        note: Reason why a fallback is used.
        simulator: Arguments of the simulator; empty for the live venue.
        frames: Number of frames of a recording; 0 otherwise.
    """

    kind: Kind
    title: str
    symbols: tuple[str, ...]
    simulator: tuple[str, ...] = ()
    frames: int = 0
    note: str = ""


def parse_source(text: str) -> Source:
    """Parse ``auto``, ``live``, ``simulated`` or ``recording=FILE``.

    Raises:
        ValueError: `text` is none of these.
    """
    name, equals, file = text.partition("=")
    if name == "recording" and file:
        return Source("recording", Path(file))
    plain: dict[str, Source] = {
        each.name: each for each in (Source("auto"), Source("live"), Source("simulated"))
    }
    if not equals and name in plain:
        return plain[name]
    raise ValueError(f"{text!r} is not one of auto, live, simulated, recording=FILE")


def recorded(file: Path, *, speed: str) -> Market:
    """Return the market of a recording after reading it completely for validation.

    Raises:
        SettingsError: The recording is invalid; the message has file and line.
    """
    summary = recording.scan(file)
    streams = {stream for stream in summary.streams if stream.endswith(("@trade", "@bookTicker"))}
    if not streams:
        raise SettingsError(f"recording {file} contains neither @trade nor @bookTicker frames")
    symbols = tuple(stream.partition("@")[0].upper() for stream in sorted(streams))
    arguments = ("replay", str(file.resolve()), "--speed", speed, "--wait-for-subscribers")
    return Market(
        "recording",
        f"recording {file.name}",
        tuple(dict.fromkeys(symbols)),
        arguments,
        summary.frames,
    )


def generated(symbols: tuple[str, ...], *, note: str = "") -> Market:
    """Return a generated market of the simulator; `note` is the reason of a fallback."""
    # Seeded by the clock: in a user's database two demos must not generate the same trade ids.
    arguments = (
        "generate", "--symbols", ",".join(symbols), "--seed", str(time.time_ns()), "--wait-for-subscribers",
        "--trade-rate", str(TRADE_RATE), "--quote-rate", str(QUOTE_RATE),
    )  # fmt: skip
    return Market("generated", "simulator", symbols, arguments, note=note)


async def live(symbols: tuple[str, ...], name: str, environment: Mapping[str, str]) -> Market:
    """Return the market of the live venue `name`.

    Args:
        symbols: Symbols to read.
        name: Name of the venue.
        environment: Environment variables.

    Raises:
        StartupError: The venue is unreachable or refused the connection.
    """
    venue = VENUES[name]
    base = environment.get("BINANCE_WS_BASE") or venue.facts.ws_base
    reason = await _probe(venue.stream_url(base, list(venue.streams(symbols[0]))))
    if reason:
        raise StartupError(f"{name} {reason}")
    return Market("live", f"{name} at {base}", symbols)


async def _probe(url: str) -> str:
    """Return the reason why `url` delivers no data; "" if it does."""
    try:
        async with (
            asyncio.timeout(PROBE_SECONDS),
            aiohttp.ClientSession() as session,
            session.ws_connect(url) as socket,
        ):
            message = await socket.receive()
    except aiohttp.WSServerHandshakeError as error:
        if error.status == 451:
            return "refuses this region (HTTP 451)"
        return f"refused the connection (HTTP {error.status})"
    except TimeoutError:
        return f"sent no data within {PROBE_SECONDS:g} s"
    except aiohttp.ClientConnectorError as error:
        return f"is unreachable at {error.host}:{error.port} ({error.os_error.strerror or error.os_error})"
    except (aiohttp.ClientError, OSError) as error:
        return f"is unreachable: {error}"
    return "" if message.type is aiohttp.WSMsgType.TEXT else "closed the connection"


async def choose(
    source: Source, symbols: tuple[str, ...], own: RunSettings, environment: Mapping[str, str]
) -> Market:
    """Choose the market of a run.

    Args:
        source: Option ``--source``.
        symbols: Option ``--symbols``; empty for the default.
        own: Settings of the run.
        environment: Environment variables.

    Raises:
        SettingsError: The recording is invalid.
        StartupError: The venue is unreachable, and it was requested or simulated trades would be stored permanently.
    """
    if source.file is not None:
        if symbols:
            raise SettingsError(
                "--symbols and a recording cannot be combined; the recording defines the symbols"
            )
        return recorded(source.file, speed="1")
    symbols = symbols or SYMBOLS
    if source.name == "simulated":
        return generated(symbols)
    try:
        return await live(symbols, own.venue, environment)
    except StartupError as error:
        if source.name == "live":
            raise
        if own.is_persistent:
            # Simulated rows would have the venue's name and be mixed with real ones.
            raise StartupError(
                f"{error}; the simulator's trades would be stored in your Kafka or database as venue"
                f" {own.venue}: use --source simulated to allow it"
            ) from error
        return generated(symbols, note=f"{error}; using the simulator")
