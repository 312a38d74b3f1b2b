"""Limits and keepalive with the tests' clock."""

import dataclasses

import pytest

from marketfeed_simulator.keepalive import Due, Keepalive
from marketfeed_simulator.limits import RequestLimits, SlidingLimit
from marketfeed_simulator.venue import BINANCE, BINANCE_US, Venue

HERE = "192.0.2.1"
SMALL = dataclasses.replace(BINANCE_US, weight_limit=10, request_limit=8)


def test_message_limit_rejects_the_sixth_in_a_second() -> None:
    limit = SlidingLimit(5, 1.0)
    assert [limit.allows(now) for now in (0.0, 0.1, 0.2, 0.3, 0.4, 0.5)] == [True] * 5 + [False]


def test_message_limit_allows_the_documented_rate() -> None:
    limit = SlidingLimit(5, 1.0)
    assert all(limit.allows(number * 0.201) for number in range(100))


def test_weight_limit_by_minute_and_address() -> None:
    limits = RequestLimits(SMALL)
    assert [limits.admit(HERE, 5, now).used_weight for now in (1, 2)] == [5, 10]
    refused = limits.admit(HERE, 1, 10)
    assert (refused.status, refused.retry_after_seconds) == (429, 50)
    assert limits.admit("192.0.2.2", 1, 10).status == 200
    assert limits.admit(HERE, 5, 60).used_weight == 5


def test_request_limit_is_independent_of_weight() -> None:
    limits = RequestLimits(SMALL)
    statuses = [limits.admit(HERE, 1, now).status for now in range(0, 90, 10)]
    assert statuses == [200] * 8 + [429]
    assert limits.admit(HERE, 1, 89).retry_after_seconds == 300 - 89


def test_ban_after_ignored_429_doubles_each_time() -> None:
    limits = RequestLimits(SMALL)
    limits.admit(HERE, 11, 0)
    statuses = [limits.admit(HERE, 1, 1).status for _ in range(4)]
    assert statuses == [429, 429, 429, 418]
    banned = limits.admit(HERE, 1, 2)
    assert (banned.status, banned.retry_after_seconds) == (418, 119)
    assert limits.admit(HERE, 1, 122).status == 200
    limits.admit(HERE, 11, 123)
    for _ in range(4):
        again = limits.admit(HERE, 1, 123)
    assert (again.status, again.retry_after_seconds) == (418, 240)


def test_rate_limit_ends_after_retry_after() -> None:
    limits = RequestLimits(SMALL)
    wait = limits.admit(HERE, 11, 30).retry_after_seconds
    assert limits.admit(HERE, 1, 30 + wait).status == 200


def test_rate_limit_forced_applies_to_new_addresses() -> None:
    limits = RequestLimits(SMALL)
    limits.admit(HERE, 1, 0)
    limits.force_back_off(7, 0)
    assert [limits.admit(address, 1, 1).retry_after_seconds for address in (HERE, "192.0.2.9")] == [6, 6]
    assert limits.admit(HERE, 1, 8).status == 200
    limits.force_ban(100, 8)
    assert [limits.admit(address, 1, 9).status for address in (HERE, "192.0.2.8")] == [418, 418]
    limits.reset()
    assert limits.admit(HERE, 1, 9).status == 200


def dues(keepalive: Keepalive, now: float) -> list[Due]:
    found = []
    while (due := keepalive.due(now)) is not None:
        found.append(due)
        if due in (Due.NO_PONG, Due.END_OF_LIFE):
            break
    return found


@pytest.mark.parametrize(("venue", "interval", "deadline"), [(BINANCE_US, 180, 600), (BINANCE, 20, 60)])
def test_keepalive_pings_at_the_interval_and_times_out(
    venue: Venue, interval: float, deadline: float
) -> None:
    keepalive = Keepalive(venue, 100)
    assert keepalive.next_at() == 100 + interval
    assert dues(keepalive, 100 + interval - 1) == []
    assert dues(keepalive, 100 + interval) == [Due.PING]
    keepalive.pinged(b"1", 100 + interval)
    assert Due.NO_PONG not in dues(keepalive, 100 + interval + deadline - 1)
    assert dues(keepalive, 100 + interval + deadline)[-1] is Due.NO_PONG


@pytest.mark.parametrize(
    ("venue", "payload", "saved"),
    [
        pytest.param(BINANCE, b"1", True, id="a copy of the ping counts"),
        pytest.param(BINANCE, b"", False, id="an unsolicited pong does not count on .com"),
        pytest.param(BINANCE_US, b"", True, id="any pong counts on .us"),
    ],
)
def test_keepalive_accepts_pongs_of_the_venue(venue: Venue, payload: bytes, saved: bool) -> None:
    keepalive = Keepalive(venue, 0)
    now = venue.ping_interval_seconds
    assert keepalive.due(now) is Due.PING
    keepalive.pinged(b"1", now)
    keepalive.ponged(payload)
    late = now + venue.pong_deadline_seconds
    assert (Due.NO_PONG in dues(keepalive, late)) is not saved


def test_keepalive_pong_confirms_earlier_pings() -> None:
    keepalive = Keepalive(BINANCE, 0)
    keepalive.pinged(b"1", 20)
    keepalive.pinged(b"2", 40)
    keepalive.ponged(b"2")
    assert Due.NO_PONG not in dues(keepalive, 200)


def test_lifetime_ends_after_a_notice() -> None:
    keepalive = Keepalive(dataclasses.replace(BINANCE, life_seconds=1000), 0)
    assert Due.NOTICE not in dues(keepalive, 499)
    assert dues(keepalive, 500).count(Due.NOTICE) == 1
    assert Due.NOTICE not in dues(keepalive, 999)
    assert dues(keepalive, 1000) == [Due.END_OF_LIFE]
    silent = Keepalive(BINANCE_US, 0)
    assert Due.NOTICE not in dues(silent, 86399)
    assert dues(silent, 86400) == [Due.END_OF_LIFE]
