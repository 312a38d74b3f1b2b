"""Errors by HTTP status of the venue."""

import pytest

from marketfeed_workers.venues.errors import (
    BadFrame,
    Limited,
    Refused,
    Unreachable,
    VenueError,
    error_for_status,
)

WHERE = "wss://stream.example:9443/stream"


@pytest.mark.parametrize(
    ("status", "kind", "reason"),
    [
        pytest.param(451, Refused, "region_refused", id="451 is final: the region"),
        pytest.param(403, Refused, "forbidden", id="403 is final: the firewall"),
        pytest.param(429, Limited, "rate_limited", id="429 has a Retry-After"),
        pytest.param(418, Limited, "banned", id="418 has a longer one"),
        pytest.param(400, Unreachable, "http_400", id="400 is transient"),
        pytest.param(404, Unreachable, "http_404", id="404 is transient"),
        pytest.param(500, Unreachable, "http_500", id="500 is transient"),
        pytest.param(503, Unreachable, "http_503", id="503 is transient"),
        pytest.param(302, Unreachable, "http_302", id="a redirect is not followed"),
    ],
)
def test_status_error_has_reason_and_url(status: int, kind: type[VenueError], reason: str) -> None:
    error = error_for_status(status, None, WHERE)
    assert type(error) is kind
    assert error.reason == reason
    assert WHERE in str(error)
    assert str(status) in str(error)


@pytest.mark.parametrize("status", [429, 418])
@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        pytest.param("7", 7.0, id="seconds"),
        pytest.param("300", 300.0, id="minutes"),
        pytest.param("1796000000", 259_200.0, id="a timestamp instead of a delay: the maximum"),
        pytest.param("0", 1.0, id="zero: a second, to avoid a busy loop"),
        pytest.param(None, 60.0, id="missing: a minute, the venue's window"),
        pytest.param("", 60.0, id="empty"),
        pytest.param("-5", 60.0, id="negative"),
        pytest.param("1.5", 60.0, id="a fraction, which is invalid"),
        pytest.param("Wed, 21 Oct 2026 07:28:00 GMT", 60.0, id="a date, which the venue does not send"),
        pytest.param("²", 60.0, id="a digit that is not a number"),
    ],
)
def test_retry_after_is_parsed_and_bounded(status: int, header: str | None, seconds: float) -> None:
    error = error_for_status(status, header, WHERE)
    assert isinstance(error, Limited)
    assert error.retry_after_seconds == seconds
    assert f"{seconds:g} s" in str(error)


def test_errors_limited_is_unreachable_and_refused_is_not() -> None:
    assert issubclass(Limited, Unreachable)
    assert not issubclass(Refused, Unreachable)
    assert not issubclass(BadFrame, Unreachable)
