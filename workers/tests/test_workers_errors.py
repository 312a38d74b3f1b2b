"""Which error an HTTP status of a venue stands for."""

import pytest

from marketfeed_workers.errors import BadFrame, Limited, Refused, Unreachable, VenueError, error_for_status

WHERE = "wss://stream.example:9443/stream"


@pytest.mark.parametrize(
    ("status", "kind", "reason"),
    [
        pytest.param(451, Refused, "region_refused", id="451 is final: the region"),
        pytest.param(403, Refused, "forbidden", id="403 is final: the firewall"),
        pytest.param(429, Limited, "rate_limited", id="429 asks for a pause"),
        pytest.param(418, Limited, "banned", id="418 asks for a longer one"),
        pytest.param(400, Unreachable, "http_400", id="400 may pass"),
        pytest.param(404, Unreachable, "http_404", id="404 may pass"),
        pytest.param(500, Unreachable, "http_500", id="500 may pass"),
        pytest.param(503, Unreachable, "http_503", id="503 may pass"),
        pytest.param(302, Unreachable, "http_302", id="a redirect is not followed"),
    ],
)
def test_a_status_is_told_with_its_reason_and_place(status: int, kind: type[VenueError], reason: str) -> None:
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
        pytest.param("1796000000", 259_200.0, id="a moment instead of a delay: the longest ban there is"),
        pytest.param("0", 1.0, id="none at all: a second, or we would ask again at once and for ever"),
        pytest.param(None, 60.0, id="not told: a minute, the venue's own window"),
        pytest.param("", 60.0, id="empty"),
        pytest.param("-5", 60.0, id="negative"),
        pytest.param("1.5", 60.0, id="a fraction, which the header cannot hold"),
        pytest.param("Wed, 21 Oct 2026 07:28:00 GMT", 60.0, id="a date, which the venue does not send"),
        pytest.param("²", 60.0, id="a digit that is no number"),
    ],
)
def test_how_long_to_leave_the_venue_alone(status: int, header: str | None, seconds: float) -> None:
    error = error_for_status(status, header, WHERE)
    assert isinstance(error, Limited)
    assert error.retry_after_seconds == seconds
    assert f"{seconds:g} s" in str(error)


def test_a_pause_is_a_kind_of_unreachable_and_a_refusal_is_not() -> None:
    assert issubclass(Limited, Unreachable)
    assert not issubclass(Refused, Unreachable)
    assert not issubclass(BadFrame, Unreachable)
