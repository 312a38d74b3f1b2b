"""What can go wrong between a worker and its venue.

VenueError
├── BadFrame          a frame that is not what the venue's protocol says; counted, the stream goes on
├── Unreachable       no connection, cut, time-out, 5xx: try again after a growing delay
│   ├── Limited       429 or 418: try again after the delay that the venue names
│   └── UnknownSymbol the venue has no such symbol, and says so
└── Refused           451 or 403: the venue does not serve us; trying again only makes it worse
"""

from typing import Final

REFUSED_SECONDS: Final = 300.0
"""How long a venue that refuses us over REST is left alone: what refuses an address is lifted, if ever, by people. Less
than the window of the alert MarketfeedVenueRefusing, which would come and go otherwise."""

MAX_RETRY_AFTER_SECONDS: Final = 3 * 86_400.0
"""The longest ban that exchanges tell of. Whoever names more has not named a delay."""


class VenueError(Exception):
    """Base of everything a venue can do to us.

    Attributes:
        reason: a constant for metrics and conditions, such as "region_refused".
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class BadFrame(VenueError):
    """A frame that cannot be read; the message names the field and shows the frame's start."""

    def __init__(self, message: str) -> None:
        super().__init__("bad_frame", message)


class Unreachable(VenueError):
    """The venue could not be reached or broke off: try again after a growing delay."""


class Limited(Unreachable):
    """The venue asks us to slow down (429) or has banned this address for a while (418).

    Attributes:
        retry_after_seconds: how long the venue wants to be left alone.
    """

    def __init__(self, reason: str, message: str, retry_after_seconds: float) -> None:
        super().__init__(reason, message)
        self.retry_after_seconds = retry_after_seconds


class UnknownSymbol(Unreachable):
    """The venue has no symbol of that name; asked for nothing else, this is an answer."""


class Refused(VenueError):
    """The venue refuses us for good: region (451) or firewall (403)."""


def error_for_status(status: int, retry_after: str | None, where: str) -> VenueError:
    """The error that an HTTP status of a venue stands for, at a WebSocket handshake or over REST.

    `retry_after` is the header of that name: seconds, or None. `where` names the address in the message.
    Statuses as exchanges use them: 429 rate limit, 418 banned for ignoring it, 451 restricted region,
    403 web application firewall.
    """
    match status:
        case 451:
            return Refused("region_refused", f"{where} answered 451: the venue does not serve this region")
        case 403:
            return Refused("forbidden", f"{where} answered 403: the venue's firewall refuses this address")
        case 429 | 418:
            # At least a second: a zero, taken at its word, would have us ask again at once and for ever.
            seconds = max(1.0, float(retry_after)) if retry_after and retry_after.isdecimal() else 60.0
            seconds = min(seconds, MAX_RETRY_AFTER_SECONDS)
            name = "rate_limited" if status == 429 else "banned"
            return Limited(name, f"{where} answered {status}: wait {seconds:g} s", seconds)
        case _:
            return Unreachable(f"http_{status}", f"{where} answered HTTP {status}")
