"""Definitions of the faults, as written in JSON to /control/faults or in a scenario file.

A fault is a JSON object whose field "fault" is its type. `after_frames` delays it by a number of frames of the market,
`after_seconds` by a time on the wall clock; without either it begins at once.
"""

from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

import msgspec

from marketfeed_service.errors import SettingsError

Positive = Annotated[int, msgspec.Meta(ge=1)]
NotNegative = Annotated[int, msgspec.Meta(ge=0)]
Seconds = Annotated[float, msgspec.Meta(ge=0)]
Chance = Annotated[float, msgspec.Meta(gt=0, le=1)]


class Fault(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="fault"):
    """Base of all faults: when it begins."""

    after_frames: NotNegative | None = None
    after_seconds: Seconds | None = None


class FrameFault(Fault, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="fault"):
    """A fault of single frames.

    `streams` are patterns such as ``btcusdt@*`` (none: all), `connection` is an id of /control/connections (none: all).
    Each matching frame is hit with the probability `chance` (drawn from `seed`) until `count` frames were hit (null: no
    limit) or `seconds` have passed (null: until removed). To silence a stream, drop all of its frames.
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
    """The frame is corrupted: truncated, not JSON, not UTF-8, a field missing, of the wrong type or not a number."""

    how: Literal["truncated", "not_json", "not_utf8", "missing_field", "wrong_type", "bad_price"] = (
        "truncated"
    )


class ConnectionFault(Fault, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="fault"):
    """A fault of the connections that are open when it begins: all of them, or one."""

    connection: int | None = None


class Cut(ConnectionFault, frozen=True, kw_only=True, tag="cut"):
    """TCP is closed without a close frame; the next `lose_frames` frames of the market are sent to nobody.

    Data written before still arrives, unless `reset`, which discards it and sends a TCP reset.
    """

    lose_frames: NotNegative = 0
    reset: bool = False


class Close(ConnectionFault, frozen=True, kw_only=True, tag="close"):
    """The connection is closed by the venue with `code`; 1008 is for an exceeded limit."""

    code: Annotated[int, msgspec.Meta(ge=1000, le=4999)] = 1008
    reason: Annotated[str, msgspec.Meta(max_length=100)] = ""


class EndOfLife(ConnectionFault, frozen=True, kw_only=True, tag="end_of_life"):
    """The connection ends as after its 24 hours, `notice_seconds` after a serverShutdown event (0: without one)."""

    notice_seconds: Seconds = 0


class ServerShutdown(ConnectionFault, frozen=True, kw_only=True, tag="server_shutdown"):
    """The serverShutdown event, raw or combined; the connection ends `close_after_seconds` later (null: never)."""

    close_after_seconds: Seconds | None = 60


class Stall(ConnectionFault, frozen=True, kw_only=True, tag="stall"):
    """No market data for `seconds` (null: until removed); pings and replies continue.

    `streams` are patterns such as ``btcusdt@trade``: only these streams stall (none: all).
    """

    streams: tuple[str, ...] = ()
    seconds: Seconds | None = None


class HalfOpen(ConnectionFault, frozen=True, kw_only=True, tag="half_open"):
    """The venue does not read, write or close for `seconds`, as after a middlebox dropped its connection state.

    Then (null: when removed) the socket is reset.
    """

    seconds: Seconds | None = None


class Refuse(Fault, frozen=True, kw_only=True, tag="refuse"):
    """New connections are rejected at the handshake with `status`; `count` of them, or all until removed.

    The response is delayed by `delay_seconds`; above the client's timeout the handshake hangs.
    """

    status: Annotated[int, msgspec.Meta(ge=400, le=599)] = 451
    count: Positive | None = None
    retry_after_seconds: Positive | None = None
    delay_seconds: Seconds = 0


class RestDelay(Fault, frozen=True, kw_only=True, tag="rest_delay"):
    """REST responses are delayed by `seconds`. `endpoint` is for example ``trades``; none means all."""

    seconds: Seconds
    endpoint: str = ""
    count: Positive | None = None


class RestError(Fault, frozen=True, kw_only=True, tag="rest_error"):
    """REST returns `status`, as JSON or (`html`) as the error page of a gateway, also with `status` 200.

    With `cut` the connection is closed without a response.
    """

    status: Annotated[int, msgspec.Meta(ge=200, le=599)] = 500
    html: bool = False
    cut: bool = False
    endpoint: str = ""
    count: Positive | None = None
    retry_after_seconds: Positive | None = None


class RestLag(Fault, frozen=True, kw_only=True, tag="rest_lag"):
    """Trades appear in REST `seconds` after they are on the streams; 0 ends it."""

    seconds: Seconds = 1


class RateLimit(Fault, frozen=True, kw_only=True, tag="rate_limit"):
    """429 with Retry-After for `seconds`, as if the limit were exceeded, then 418 for a client that ignores it."""

    seconds: Positive = 10


class Ban(Fault, frozen=True, kw_only=True, tag="ban"):
    """418 with Retry-After for `seconds`."""

    seconds: Positive = 120


class SymbolFault(Fault, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="fault"):
    """A fault of some symbols."""

    symbols: Annotated[tuple[str, ...], msgspec.Meta(min_length=1)]


class Halt(SymbolFault, frozen=True, kw_only=True, tag="halt"):
    """Trading stops and exchangeInfo has `status`, for `seconds` or until `resume`."""

    status: Literal["HALT", "BREAK", "END_OF_DAY", "AUCTION_MATCH", "POST_TRADING", "CANCEL_ONLY"] = "HALT"
    seconds: Seconds | None = None


class Resume(SymbolFault, frozen=True, kw_only=True, tag="resume"):
    """Trading resumes."""


class Delist(SymbolFault, frozen=True, kw_only=True, tag="delist"):
    """The symbols are delisted: not in exchangeInfo, -1121 over REST, no data on the streams."""


class List(SymbolFault, frozen=True, kw_only=True, tag="list"):
    """The symbols are listed and trade at these rates (events per second)."""

    trade_rate: Seconds = 5
    quote_rate: Seconds = 20


class SkipIds(SymbolFault, frozen=True, kw_only=True, tag="skip_ids"):
    """The venue skips the next `count` trade ids: they exist neither on the streams nor in REST."""

    count: Positive = 1


class RestartIds(SymbolFault, frozen=True, kw_only=True, tag="restart_ids"):
    """Trade ids and update ids restart after `last_id`, as after a reset of a test network; REST loses its history."""

    last_id: NotNegative = 0


class OddRows(SymbolFault, frozen=True, kw_only=True, tag="odd_rows"):
    """REST returns the price of the next `count` trades in an undocumented format ("1E-8"); streams are unchanged."""

    count: Positive = 1


class WrongUnit(Fault, frozen=True, kw_only=True, tag="wrong_unit"):
    """New connections that request microseconds receive milliseconds."""


class ClockSkew(Fault, frozen=True, kw_only=True, tag="clock_skew"):
    """The venue's clock is ahead of ours by `milliseconds` (negative: behind); 0 ends it."""

    milliseconds: int


class Burst(Fault, frozen=True, kw_only=True, tag="burst"):
    """Event rates are multiplied by `factor` for `seconds` (null: until removed)."""

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
    """Decode a fault from JSON.

    Raises:
        ValueError: the JSON is not a fault; the message names the field.
    """
    fault: AnyFault = msgspec.json.decode(body, type=AnyFault)
    return fault


def as_fields(fault: Fault) -> dict[str, Any]:
    """Return a fault as JSON fields, without those that are None."""
    fields: dict[str, Any] = msgspec.to_builtins(fault)
    return {name: value for name, value in fields.items() if value is not None}


def read_scenario(path: Path) -> list[AnyFault]:
    """Read the faults of a scenario file: ``faults:`` and a list, in YAML or JSON.

    Raises:
        SettingsError: the file cannot be read or is not a scenario.
    """
    try:
        return msgspec.yaml.decode(path.read_bytes(), type=_Scenario).faults
    except OSError as error:
        raise SettingsError(f"scenario {path} cannot be read: {error.strerror or error}") from error
    except msgspec.MsgspecError as error:
        raise SettingsError(f"scenario {path}: {error}") from error
