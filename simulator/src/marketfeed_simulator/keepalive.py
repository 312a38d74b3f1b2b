"""A connection's pings and its end, as a plain state machine; the clock (seconds, monotonic) is an argument."""

from dataclasses import dataclass, field
from enum import Enum

from marketfeed_simulator.venue import Venue


class Due(Enum):
    """What a connection has to do now."""

    PING = "ping"
    NOTICE = "notice"
    """Tell the client that its connection will end (serverShutdown)."""
    NO_PONG = "no pong"
    """End it: a ping was not answered in time."""
    END_OF_LIFE = "end of life"


@dataclass(slots=True)
class Keepalive:
    """When a connection that began at `began` is pinged, warned and ended."""

    venue: Venue
    began: float
    _pings: int = 0
    _unanswered: dict[bytes, float] = field(default_factory=dict)
    _noticed: bool = False

    @property
    def _ends(self) -> float:
        return self.began + self.venue.life_seconds

    @property
    def _notice(self) -> float | None:
        if self._noticed or not self.venue.shutdown_notice_seconds:
            return None
        return self._ends - min(self.venue.shutdown_notice_seconds, self.venue.life_seconds / 2)

    def next_at(self) -> float:
        """When `due` will next have something to say."""
        times = [self._ends, self.began + (self._pings + 1) * self.venue.ping_interval_seconds]
        if self._notice is not None:
            times.append(self._notice)
        if self._unanswered:
            times.append(min(self._unanswered.values()) + self.venue.pong_deadline_seconds)
        return min(times)

    def due(self, now: float) -> Due | None:
        """What is due at `now`, the gravest first; call again until None."""
        if now >= self._ends:
            return Due.END_OF_LIFE
        if self._unanswered and now >= min(self._unanswered.values()) + self.venue.pong_deadline_seconds:
            return Due.NO_PONG
        if self._notice is not None and now >= self._notice:
            self._noticed = True
            return Due.NOTICE
        if now >= self.began + (self._pings + 1) * self.venue.ping_interval_seconds:
            self._pings += 1
            return Due.PING
        return None

    def pinged(self, payload: bytes, now: float) -> None:
        """A ping with `payload` was sent."""
        self._unanswered.setdefault(payload, now)

    def ponged(self, payload: bytes) -> None:
        """A pong came. It answers its own ping and those before it, or, where no copy is asked for, every ping."""
        if not self.venue.echo_required:
            self._unanswered.clear()
        elif payload in self._unanswered:
            answered = self._unanswered[payload]
            self._unanswered = {key: sent for key, sent in self._unanswered.items() if sent > answered}
