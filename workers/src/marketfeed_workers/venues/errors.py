"""Errors of a venue.

VenueError
├── BadFrame          a frame that violates the venue's protocol; counted and skipped
├── Unreachable       no connection, connection lost, timeout, 5xx: retried with backoff
│   ├── Limited       429 or 418: retried after Retry-After
│   └── UnknownSymbol the venue does not list the symbol
└── Refused           451 or 403: the venue does not serve this address; retried slowly
"""

from typing import Final

REFUSED_SECONDS: Final = 300.0
"""Retry interval after a refusal, which only people can lift. Less than the window of the alert
MarketfeedVenueRefusing, which would flap otherwise."""

MAX_RETRY_AFTER_SECONDS: Final = 3 * 86_400.0
"""The longest documented ban; a larger Retry-After is not a delay."""


class VenueError(Exception):
    """Base of the errors of a venue.

    Attributes:
        reason: constant for metrics and conditions, such as "region_refused".
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class BadFrame(VenueError):
    """An invalid frame; the message has the field and the start of the frame."""

    def __init__(self, message: str) -> None:
        super().__init__("bad_frame", message)


class Unreachable(VenueError):
    """The venue could not be reached or closed the connection; retry with backoff."""


class Limited(Unreachable):
    """The address is rate limited (429) or banned (418).

    Attributes:
        retry_after_seconds: delay before the next request.
    """

    def __init__(self, reason: str, message: str, retry_after_seconds: float) -> None:
        super().__init__(reason, message)
        self.retry_after_seconds = retry_after_seconds


class UnknownSymbol(Unreachable):
    """The venue does not list the symbol."""


class Refused(VenueError):
    """The venue refuses this address: region (451) or firewall (403)."""


def error_for_status(status: int, retry_after: str | None, where: str) -> VenueError:
    """Return the error for an HTTP status of a WebSocket handshake or a REST response.

    Statuses as used by exchanges: 429 rate limit, 418 banned for ignoring it, 451 restricted region, 403 web
    application firewall.

    Args:
        status: HTTP status.
        retry_after: the Retry-After header in seconds, or None.
        where: URL for the message.
    """
    match status:
        case 451:
            return Refused("region_refused", f"{where} returned 451: the venue does not serve this region")
        case 403:
            return Refused("forbidden", f"{where} returned 403: the venue's firewall refuses this address")
        case 429 | 418:
            # At least a second: zero would be a busy loop.
            seconds = max(1.0, float(retry_after)) if retry_after and retry_after.isdecimal() else 60.0
            seconds = min(seconds, MAX_RETRY_AFTER_SECONDS)
            name = "rate_limited" if status == 429 else "banned"
            return Limited(name, f"{where} returned {status}: retry after {seconds:g} s", seconds)
        case _:
            return Unreachable(f"http_{status}", f"{where} returned HTTP {status}")
