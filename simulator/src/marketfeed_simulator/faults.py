"""The faults a venue can show, as the user writes them: JSON over /control/faults, or a scenario file.

A fault is a JSON object whose "fault" names its kind. Each may wait: `after_frames` counts the frames that the market
produces from the moment the fault is set, `after_seconds` is by the wall clock; without either it begins at once.
"""

from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

import msgspec

from marketfeed_chassis.errors import SettingsError

Positive = Annotated[int, msgspec.Meta(ge=1)]
NotNegative = Annotated[int, msgspec.Meta(ge=0)]
Seconds = Annotated[float, msgspec.Meta(ge=0)]
Chance = Annotated[float, msgspec.Meta(gt=0, le=1)]


class Fault(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="fault"):
    """What every fault has: when it begins."""

    after_frames: NotNegative | None = None
    after_seconds: Seconds | None = None


class FrameFault(Fault, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="fault"):
    """A fault of single frames.

    `streams` are patterns such as ``btcusdt@*`` (none: all), `connection` is an id of /control/connections (none: all).
    It strikes each matching frame with `chance` (drawn from `seed`) until it has struck `count` times (null: without
    bound) or `seconds` have passed (null: until removed). A stream without frames is a drop of all of its frames.
    """

    streams: tuple[str, ...] = ()
    connection: int | None = None
    count: Positive | None = 1
    chance: Chance = 1.0
    seed: int = 0
    seconds: Seconds | None = None


class Drop(FrameFault, frozen=True, kw_only=True, tag="drop"):
    """The frame is not sent."""


class Duplicate(FrameFault, frozen=True, kw_only=True, tag="duplicate"):
    """The frame is sent again at once, `copies` times."""

    copies: Positive = 1


class Reorder(FrameFault, frozen=True, kw_only=True, tag="reorder"):
    """The frame is sent after the next `distance` frames of its connection."""

    distance: Positive = 1


class Corrupt(FrameFault, frozen=True, kw_only=True, tag="corrupt"):
    """The frame is spoiled: cut in half, no JSON, no UTF-8, a field missing, of the wrong type, or no number."""

    how: Literal["truncated", "not_json", "not_utf8", "missing_field", "wrong_type", "bad_price"] = (
        "truncated"
    )


class ConnectionFault(Fault, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="fault"):
    """A fault of the connections there are when it begins: of all, or of one."""

    connection: int | None = None


class Cut(ConnectionFault, frozen=True, kw_only=True, tag="cut"):
    """TCP ends without a close frame; the next `lose_frames` frames of the market go to nobody.

    What was written before still arrives, unless `reset`, which drops it and sends a TCP reset.
    """

    lose_frames: NotNegative = 0
    reset: bool = False


class Close(ConnectionFault, frozen=True, kw_only=True, tag="close"):
    """The connection is closed by the venue with `code`; 1008 is its answer to a broken limit."""

    code: Annotated[int, msgspec.Meta(ge=1000, le=4999)] = 1008
    reason: Annotated[str, msgspec.Meta(max_length=100)] = ""


class EndOfLife(ConnectionFault, frozen=True, kw_only=True, tag="end_of_life"):
    """The connection ends as after its 24 hours, `notice_seconds` after a serverShutdown event (0: without one)."""

    notice_seconds: Seconds = 0


class ServerShutdown(ConnectionFault, frozen=True, kw_only=True, tag="server_shutdown"):
    """The serverShutdown event, raw or combined; the connection ends `close_after_seconds` later (null: never)."""

    close_after_seconds: Seconds | None = 60


class Stall(ConnectionFault, frozen=True, kw_only=True, tag="stall"):
    """The connection goes mute: no market data for `seconds` (null: until removed), but pings and replies go on.

    `streams` are patterns such as ``btcusdt@trade``: only these streams stall (none: all).
    """

    streams: tuple[str, ...] = ()
    seconds: Seconds | None = None


class HalfOpen(ConnectionFault, frozen=True, kw_only=True, tag="half_open"):
    """The venue neither reads nor writes nor closes, as when a middlebox forgot the connection, for `seconds`.

    Then (null: when removed) the socket is reset.
    """

    seconds: Seconds | None = None


class Refuse(Fault, frozen=True, kw_only=True, tag="refuse"):
    """New connections are refused at the handshake with `status`; `count` of them, or all until removed.

    The handshake is answered `delay_seconds` late: more than the client's timeout, and it hangs.
    """

    status: Annotated[int, msgspec.Meta(ge=400, le=599)] = 451
    count: Positive | None = None
    retry_after_seconds: Positive | None = None
    delay_seconds: Seconds = 0


class RestDelay(Fault, frozen=True, kw_only=True, tag="rest_delay"):
    """REST answers `seconds` late. `endpoint` is such as ``trades``; none means all."""

    seconds: Seconds
    endpoint: str = ""
    count: Positive | None = None


class RestError(Fault, frozen=True, kw_only=True, tag="rest_error"):
    """REST answers `status`, as JSON or (`html`) as a gateway's page; with `status` 200 the page comes as a success.

    With `cut` it closes the connection instead of answering.
    """

    status: Annotated[int, msgspec.Meta(ge=200, le=599)] = 500
    html: bool = False
    cut: bool = False
    endpoint: str = ""
    count: Positive | None = None
    retry_after_seconds: Positive | None = None


class RestLag(Fault, frozen=True, kw_only=True, tag="rest_lag"):
    """REST knows of trades only `seconds` after the streams do; 0 mends it."""

    seconds: Seconds = 1


class RateLimit(Fault, frozen=True, kw_only=True, tag="rate_limit"):
    """As if the limit were broken: 429 with Retry-After for `seconds`, then 418 for whoever does not heed it."""

    seconds: Positive = 10


class Ban(Fault, frozen=True, kw_only=True, tag="ban"):
    """418 with Retry-After for `seconds`."""

    seconds: Positive = 120


class SymbolFault(Fault, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="fault"):
    """A change of some symbols."""

    symbols: Annotated[tuple[str, ...], msgspec.Meta(min_length=1)]


class Halt(SymbolFault, frozen=True, kw_only=True, tag="halt"):
    """Trading stops and exchangeInfo says `status`; for `seconds`, or until `resume`."""

    status: Literal["HALT", "BREAK", "END_OF_DAY", "AUCTION_MATCH", "POST_TRADING", "CANCEL_ONLY"] = "HALT"
    seconds: Seconds | None = None


class Resume(SymbolFault, frozen=True, kw_only=True, tag="resume"):
    """Trading goes on."""


class Delist(SymbolFault, frozen=True, kw_only=True, tag="delist"):
    """The symbols are no longer known: not in exchangeInfo, -1121 over REST, silent streams."""


class List(SymbolFault, frozen=True, kw_only=True, tag="list"):
    """The symbols are listed and begin to trade at these rates (events a second)."""

    trade_rate: Seconds = 5
    quote_rate: Seconds = 20


class SkipIds(SymbolFault, frozen=True, kw_only=True, tag="skip_ids"):
    """The venue leaves out the next `count` trade ids: no stream and no REST answer will ever have them."""

    count: Positive = 1


class RestartIds(SymbolFault, frozen=True, kw_only=True, tag="restart_ids"):
    """Trade ids and update ids begin anew after `last_id`, as when a test network is reset; REST forgets what was."""

    last_id: NotNegative = 0


class OddRows(SymbolFault, frozen=True, kw_only=True, tag="odd_rows"):
    """REST writes the price of the next `count` trades as no document says ("1E-8"); the streams write it as ever."""

    count: Positive = 1


class WrongUnit(Fault, frozen=True, kw_only=True, tag="wrong_unit"):
    """New connections that ask for microseconds get milliseconds."""


class ClockSkew(Fault, frozen=True, kw_only=True, tag="clock_skew"):
    """The venue's clock is ahead of ours by `milliseconds` (negative: behind); 0 mends it."""

    milliseconds: int


class Burst(Fault, frozen=True, kw_only=True, tag="burst"):
    """The market is `factor` times as busy for `seconds` (null: until removed)."""

    factor: Annotated[float, msgspec.Meta(gt=0, le=1000)] = 20
    seconds: Seconds | None = None


AnyFault: TypeAlias = (
    Drop
    | Duplicate
    | Reorder
    | Corrupt
    | Cut
    | Close
    | EndOfLife
    | ServerShutdown
    | Stall
    | HalfOpen
    | Refuse
    | RestDelay
    | RestError
    | RestLag
    | RateLimit
    | Ban
    | Halt
    | Resume
    | Delist
    | List
    | SkipIds
    | RestartIds
    | OddRows
    | WrongUnit
    | ClockSkew
    | Burst
)


class _Scenario(msgspec.Struct, forbid_unknown_fields=True):
    faults: list[AnyFault]


def parse(body: bytes) -> AnyFault:
    """A fault from JSON.

    Raises:
        ValueError: it is none; names what is wrong.
    """
    fault: AnyFault = msgspec.json.decode(body, type=AnyFault)
    return fault


def as_fields(fault: Fault) -> dict[str, Any]:
    """A fault as JSON-ready fields, without those left at their default None."""
    fields: dict[str, Any] = msgspec.to_builtins(fault)
    return {name: value for name, value in fields.items() if value is not None}


def read_scenario(path: Path) -> list[AnyFault]:
    """The faults of a scenario file: ``faults:`` and a list, in YAML or JSON (which is YAML).

    Raises:
        SettingsError: it cannot be read or is none; names what is wrong.
    """
    try:
        return msgspec.yaml.decode(path.read_bytes(), type=_Scenario).faults
    except OSError as error:
        raise SettingsError(f"scenario {path} cannot be read: {error.strerror or error}") from error
    except msgspec.MsgspecError as error:
        raise SettingsError(f"scenario {path}: {error}") from error
