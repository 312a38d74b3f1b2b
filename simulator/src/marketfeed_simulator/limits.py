"""The venue's limits as state machines without I/O; `now` is monotonic, in seconds."""

import math
from collections import deque
from dataclasses import dataclass, field, replace
from typing import Final

from marketfeed_simulator.venue import Venue

_LONGEST_BAN_SECONDS: Final = 3 * 24 * 3600
_MAX_IGNORED: Final = 3
"""Requests before the end of Retry-After that are answered with 429 again; the next one leads to a ban."""


class SlidingLimit:
    """At most `limit` events within any `window_seconds`."""

    def __init__(self, limit: int, window_seconds: float) -> None:
        self._limit = limit
        self._window = window_seconds
        self._times: deque[float] = deque()

    def allows(self, now: float) -> bool:
        """Count an event and return whether it is within the limit. Rejected events count too, as at the venue."""
        self._times.append(now)
        while self._times[0] <= now - self._window:
            self._times.popleft()
        return len(self._times) <= self._limit


@dataclass(frozen=True, slots=True)
class Admission:
    """Response to a request: status 200, 429 or 418, weight used in this minute, Retry-After."""

    status: int
    used_weight: int
    retry_after_seconds: int = 0
    banned_until: float = 0


@dataclass(slots=True)
class _Client:
    minute: int = -1
    weight: int = 0
    five_minutes: int = -1
    requests: int = 0
    back_off_until: float = 0
    ignored: int = 0
    banned_until: float = 0
    bans: int = 0


@dataclass(slots=True)
class RequestLimits:
    """Request weight and request count by address, in fixed windows, with backoff and bans."""

    venue: Venue
    clients: dict[str, _Client] = field(default_factory=dict)
    _newcomer: _Client = field(default_factory=_Client)

    def admit(self, address: str, weight: int, now: float) -> Admission:
        """Count a request of `weight` from `address` at `now`."""
        client = self.clients.get(address)
        if client is None:
            client = self.clients[address] = replace(self._newcomer)
        self._turn_windows(client, now)
        client.requests += 1
        client.weight += weight
        if now < client.banned_until:
            return self._answer(418, client, client.banned_until, now)
        if now < client.back_off_until:
            client.ignored += 1
            if client.ignored > _MAX_IGNORED:
                return self._ban(client, now)
            return self._answer(429, client, client.back_off_until, now)
        if client.weight > self.venue.weight_limit:
            return self._back_off(client, (client.minute + 1) * 60, now)
        if client.requests > self.venue.request_limit:
            return self._back_off(client, (client.five_minutes + 1) * 300, now)
        return Admission(200, client.weight)

    def force_back_off(self, seconds: float, now: float) -> None:
        """Rate limit every address: 429 for `seconds`, 418 for an address that ignores it."""
        self._newcomer = replace(self._newcomer, back_off_until=now + seconds)
        for client in self.clients.values():
            client.back_off_until, client.ignored = now + seconds, 0

    def force_ban(self, seconds: float, now: float) -> None:
        """Ban every address for `seconds` (418)."""
        self._newcomer = replace(self._newcomer, banned_until=now + seconds)
        for client in self.clients.values():
            client.banned_until = now + seconds

    def reset(self) -> None:
        """Clear every backoff, ban and used weight."""
        self.clients.clear()
        self._newcomer = _Client()

    def _ban(self, client: _Client, now: float) -> Admission:
        seconds = min(self.venue.ban_seconds * 2**client.bans, _LONGEST_BAN_SECONDS)
        client.bans += 1
        client.banned_until = now + seconds
        return self._answer(418, client, client.banned_until, now)

    def _back_off(self, client: _Client, until: float, now: float) -> Admission:
        client.back_off_until, client.ignored = until, 0
        return self._answer(429, client, until, now)

    @staticmethod
    def _answer(status: int, client: _Client, until: float, now: float) -> Admission:
        return Admission(status, client.weight, max(1, math.ceil(until - now)), until)

    @staticmethod
    def _turn_windows(client: _Client, now: float) -> None:
        minute, five_minutes = int(now // 60), int(now // 300)
        if client.minute != minute:
            client.minute, client.weight = minute, 0
        if client.five_minutes != five_minutes:
            client.five_minutes, client.requests = five_minutes, 0
