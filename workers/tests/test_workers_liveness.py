"""Liveness of a stream by its history and by REST, with the test's clock."""

import random
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marketfeed_workers.stream.liveness import (
    CONFIRM_SECONDS,
    FIRST_PROBE_SECONDS,
    MAX_BOUND_SECONDS,
    MIN_BOUND_SECONDS,
    RETRY_SECONDS,
    StreamLiveness,
)

QUIET = 5.0


def fresh() -> StreamLiveness:
    """Return a stream subscribed at second 0."""
    return StreamLiveness(0, 0.0, QUIET)


def after_a_history(per_second: float, seconds: int = 300) -> tuple[StreamLiveness, int, float]:
    """Return a stream observed each second with evenly spaced messages, their number, and the current second."""
    stream = fresh()
    for second in range(1, seconds + 1):
        stream.observe(int(second * per_second), second)
    return stream, int(seconds * per_second), float(seconds)


def stalled() -> tuple[StreamLiveness, int, float]:
    """Return a stalled busy stream, the number of messages, and the current second."""
    stream, seen, now = after_a_history(10)
    stream.observe(seen, now + 4)
    assert not stream.newer("a", now + 4)
    assert stream.newer("a", now + 5)
    return stream, seen, now + 5


def seconds_until_probed(stream: StreamLiveness, seen: int, now: float) -> int:
    for silent in range(1, 2000):
        stream.observe(seen, now + silent)
        if stream.probe_due(now + silent):
            return silent
    raise AssertionError("never")


@pytest.mark.parametrize(
    ("per_second", "earliest", "latest"),
    [
        pytest.param(100, 3, 4, id="a busy stream: within seconds"),
        pytest.param(5, 3, 6, id="some messages a second"),
        pytest.param(0.5, 30, 90, id="a message in two seconds: about a minute"),
        pytest.param(0.05, 200, 500, id="a message in twenty seconds: minutes"),
    ],
)
def test_liveness_probes_after_a_silence_beyond_the_stream_s_bound(
    per_second: float, earliest: int, latest: int
) -> None:
    assert earliest <= seconds_until_probed(*after_a_history(per_second)) <= latest


def test_liveness_of_a_stalled_stream_does_not_become_idle_with_time() -> None:
    stream, seen, now = after_a_history(10)
    for silent in range(1, 3600):
        stream.observe(seen, now + silent)
    assert not stream.ready
    assert stream.bound < 10 * MIN_BOUND_SECONDS


def test_liveness_adapts_to_a_quiet_market_within_a_few_messages() -> None:
    stream, seen, now = after_a_history(10)
    for message in range(1, 12):  # one in five minutes from now on
        stream.observe(seen + message, now + message * 300)
    assert stream.bound > 300


def test_liveness_probes_back_off_while_the_venue_has_nothing_newer() -> None:
    stream, seen, now = after_a_history(10)
    asked: list[int] = []
    for silent in range(1, 36_000):  # ten hours
        stream.observe(seen, now + silent)
        assert stream.ready
        if stream.probe_due(now + silent):
            asked.append(silent)
            stream.on_nothing_newer(now + silent)
    pauses = [later - earlier for earlier, later in pairwise(asked)]
    assert pauses == sorted(pauses)
    assert pauses[0] < 10
    assert pauses[-1] == MAX_BOUND_SECONDS + 1
    stream.observe(seen + 10, now + 36_001)
    assert stream.bound < 60, "with the first message the bound is the usual one again"


@pytest.mark.parametrize(("per_second", "lively"), [(50, True), (5, True), (0.5, False), (0, False)], ids=str)
def test_liveness_active_streams_have_a_bound_of_seconds(per_second: float, lively: bool) -> None:
    assert after_a_history(per_second)[0].is_active is lively


@given(st.floats(0.2, 50), st.integers(0, 2**32))
@settings(max_examples=30)
def test_liveness_rarely_probes_a_quiet_market(per_second: float, seed: int) -> None:
    rng = random.Random(seed)  # noqa: S311 - arrivals, not secrets
    stream, seen, next_at, probes = fresh(), 0, 0.0, 0
    for second in range(1, 1200):
        while next_at <= second:
            seen += 1
            next_at += rng.expovariate(per_second)
        stream.observe(seen, second)
        if second > 120 and stream.probe_due(second):
            probes += 1
    assert probes == 0


def test_liveness_first_message_is_not_a_rate() -> None:
    stream = fresh()
    stream.observe(1, 0.25)
    assert stream.bound >= 20
    assert not stream.is_active


def test_liveness_of_a_stream_without_messages_is_ready_when_rest_shows_nothing_newer_twice() -> None:
    stream = fresh()
    assert not stream.ready
    assert not stream.probe_due(FIRST_PROBE_SECONDS - 0.1)
    assert stream.probe_due(FIRST_PROBE_SECONDS)
    stream.newer("the newest trade, from before", FIRST_PROBE_SECONDS)
    assert stream.state == "waiting"
    assert stream.reference == "the newest trade, from before"
    later = FIRST_PROBE_SECONDS + QUIET
    assert not stream.probe_due(later - 0.1)
    assert stream.probe_due(later)
    stream.on_nothing_newer(later)
    assert stream.ready


def test_liveness_of_a_stream_that_never_delivers_is_stalled_when_rest_advances() -> None:
    stream = fresh()
    stream.newer("old", 1.0)
    assert not stream.newer("new", 6.0), "a message may be in flight"
    assert stream.probe_due(6.0 + CONFIRM_SECONDS)
    assert stream.newer("new", 6.0 + CONFIRM_SECONDS)
    assert stream.state == "stalled"


def test_liveness_of_a_symbol_without_trades_is_ready_at_once() -> None:
    stream = fresh()
    stream.on_nothing_newer(FIRST_PROBE_SECONDS)
    assert stream.ready


def test_liveness_stall_ends_with_a_message_or_a_subscription_and_not_by_rest() -> None:
    stream, seen, now = stalled()
    assert stream.probe_due(now + RETRY_SECONDS)
    stream.on_nothing_newer(now + RETRY_SECONDS)  # its data was backfilled
    assert stream.state == "stalled"
    stream.observe(seen + 1, now + 60)
    assert stream.ready
    stream, seen, now = stalled()
    stream.subscribe(now, verified=False)
    assert stream.state == "waiting"


def test_liveness_stall_is_reported_once() -> None:
    stream, _, now = stalled()
    assert not any(stream.newer("a", now + n) for n in range(1, 20))


def test_liveness_one_newer_response_is_reset_by_the_next_message() -> None:
    stream, seen, now = after_a_history(10)
    assert not stream.newer("on its way", now + 4)
    stream.observe(seen + 1, now + 4.5)
    assert not stream.newer("on its way", now + 9)
    assert stream.ready


@pytest.mark.parametrize("state", ["live", "idle"])
def test_liveness_is_unverified_when_rest_does_not_respond_for_another_bound(state: str) -> None:
    stream, seen, now = after_a_history(10)
    if state == "idle":
        stream.on_nothing_newer(now)
    bound = stream.bound
    stream.probe_failed(now + bound)
    stream.observe(seen, now + 1.9 * bound)
    assert stream.ready
    stream.observe(seen, now + 2.1 * bound)
    assert stream.state == "unverified"
    assert stream.probe_due(now + 2.1 * bound + RETRY_SECONDS)
    stream.on_nothing_newer(now + 20)
    assert stream.ready


def test_liveness_of_a_new_stream_is_unverified_when_rest_does_not_respond() -> None:
    stream = fresh()
    stream.probe_failed(2 * QUIET - 1)
    assert stream.state == "waiting"
    stream.probe_failed(2 * QUIET + 1)
    assert stream.state == "unverified"
    assert not stream.newer("the first response", 2 * QUIET + 2), "is only the reference"
    stream.on_nothing_newer(4 * QUIET)
    assert stream.ready


def test_liveness_stays_unverified_in_a_new_session_without_rest() -> None:
    stream, seen, now = after_a_history(10)
    stream.observe(seen, now + 3 * stream.bound)
    assert stream.state == "unverified"
    stream.subscribe(now + 30, verified=True)
    stream.observe(seen, now + 31)
    assert not stream.ready
    stream.observe(seen + 1, now + 32)
    assert stream.ready


def test_liveness_keeps_state_and_history_in_a_verified_session() -> None:
    stream, seen, now = after_a_history(10)
    stream.subscribe(now, verified=True)
    assert stream.ready
    assert seconds_until_probed(stream, seen, now) <= 4
    idle = fresh()
    idle.on_nothing_newer(1.0)
    idle.subscribe(2.0, verified=True)
    assert idle.state == "idle"


events = st.lists(
    st.tuples(
        st.sampled_from(
            ["message", "newer", "nothing_newer", "unanswered", "subscribe", "new_session", "wait"]
        ),
        st.floats(0.1, 100),
    ),
    max_size=60,
)


@given(events)
def test_liveness_ready_means_delivered_since_the_subscription_or_nothing_newer(
    history: list[tuple[str, float]],
) -> None:
    stream, now, seen = fresh(), 0.0, 0
    is_proven = False  # the plain definition
    for event, seconds in history:
        now += seconds
        match event:
            case "message":
                seen += 1
            case "newer":
                stream.newer(now, now)
            case "nothing_newer":
                stream.on_nothing_newer(now)
                is_proven = True
            case "unanswered":
                stream.probe_failed(now)
            case "subscribe":
                stream.subscribe(now, verified=False)
                is_proven = False
            case "new_session":
                stream.subscribe(now, verified=True)
                is_proven = True
        stream.observe(seen, now)
        is_proven = is_proven or event == "message"
        assert is_proven or not stream.ready
        assert event != "message" or stream.state == "live"
