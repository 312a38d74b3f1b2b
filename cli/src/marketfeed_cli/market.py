"""Where the trades of a run come from: the real venue, the simulator's generated market, or a recording."""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import aiohttp

from marketfeed_chassis.errors import SettingsError, StartupError
from marketfeed_cli.settings import OwnParts
from marketfeed_simulator import recording
from marketfeed_workers.venues.registry import VENUES

SYMBOLS: Final = ("BTCUSDT", "ETHUSDT", "SOLUSDT")
"""What a demo shows unless it is told otherwise."""

PROBE_SECONDS: Final = 5.0
TRADE_RATE: Final = 20
QUOTE_RATE: Final = 80

Kind = Literal["live", "generated", "recording"]


@dataclass(frozen=True)
class Source:
    """What the user asked for with ``--source``."""

    name: Literal["auto", "live", "simulated", "recording"]
    file: Path | None = None


@dataclass(frozen=True)
class Market:
    """What a run reads.

    Attributes:
        title: for the user.
        note: why it is not the one that the user may expect.
        simulator: the simulator's arguments; empty for the real venue.
        frames: how many frames a recording holds; 0 otherwise.
    """

    kind: Kind
    title: str
    symbols: tuple[str, ...]
    simulator: tuple[str, ...] = ()
    frames: int = 0
    note: str = ""


def parse_source(text: str) -> Source:
    """``auto``, ``live``, ``simulated`` or ``recording=FILE``.

    Raises:
        ValueError: it is none of these.
    """
    name, equals, file = text.partition("=")
    if name == "recording" and file:
        return Source("recording", Path(file))
    plain: dict[str, Source] = {
        each.name: each for each in (Source("auto"), Source("live"), Source("simulated"))
    }
    if not equals and name in plain:
        return plain[name]
    raise ValueError(f"{text!r} is none of auto, live, simulated, recording=FILE")


def recorded(file: Path, *, speed: str) -> Market:
    """The market of a recording, read whole to see that it can be replayed.

    Raises:
        SettingsError: it cannot; names the file and the line.
    """
    summary = recording.scan(file)
    streams = {stream for stream in summary.streams if stream.endswith(("@trade", "@bookTicker"))}
    if not streams:
        raise SettingsError(f"recording {file} holds neither @trade nor @bookTicker frames")
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
    """A market made by the simulator; `note` says why it is not the real one."""
    # Seeded by the clock: in a database of the user's own, two demos must not claim the same trade ids.
    arguments = (
        "generate", "--symbols", ",".join(symbols), "--seed", str(time.time_ns()), "--wait-for-subscribers",
        "--trade-rate", str(TRADE_RATE), "--quote-rate", str(QUOTE_RATE),
    )  # fmt: skip
    return Market("generated", "simulator", symbols, arguments, note=note)


async def live(symbols: tuple[str, ...], name: str, environment: Mapping[str, str]) -> Market:
    """The real venue called `name`.

    Raises:
        StartupError: it cannot be reached, or refuses us; says which.
    """
    venue = VENUES[name]
    base = environment.get("BINANCE_WS_BASE") or venue.facts.ws_base
    reason = await _probe(venue.stream_url(base, list(venue.streams(symbols[0]))))
    if reason:
        raise StartupError(f"{name} {reason}")
    return Market("live", f"{name} at {base}", symbols)


async def _probe(url: str) -> str:
    """Why no data comes from `url`; "" when some did."""
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
        return f"sent nothing within {PROBE_SECONDS:g} s"
    except aiohttp.ClientConnectorError as error:
        return f"cannot be reached at {error.host}:{error.port} ({error.os_error.strerror or error.os_error})"
    except (aiohttp.ClientError, OSError) as error:
        return f"cannot be reached: {error}"
    return "" if message.type is aiohttp.WSMsgType.TEXT else "closed the connection"


async def choose(
    source: Source, symbols: tuple[str, ...], own: OwnParts, environment: Mapping[str, str]
) -> Market:
    """The market to read.

    Raises:
        SettingsError: the recording cannot be replayed.
        StartupError: the venue cannot be reached, and it was asked for or made-up trades would be kept.
    """
    if source.file is not None:
        if symbols:
            raise SettingsError(
                "--symbols and a recording cannot be combined: a recording has the symbols it has"
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
        if own.any:
            # Its rows carry the venue's name, and nobody asked for made-up trades among real ones.
            raise StartupError(
                f"{error}; the simulator's trades would stay in your own Kafka or database under venue"
                f" {own.venue}: if that is wanted, say --source simulated"
            ) from error
        return generated(symbols, note=f"{error}; using the simulator")
