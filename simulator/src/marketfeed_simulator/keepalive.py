"""Keepalive and lifetime of a connection as a state machine without I/O; `now` is monotonic, in seconds."""

from dataclasses import dataclass, field
from enum import Enum

from marketfeed_simulator.venue import Venue


class Due(Enum):
    """Action that is due on a connection."""

    PING = "ping"
    NOTICE = "notice"
    """Announce the end of the connection (serverShutdown)."""
    NO_PONG = "no pong"
    """Close: no pong within the deadline."""
    END_OF_LIFE = "end of life"


@dataclass(slots=True)
class Keepalive:
    """Schedule of pings, notice and end of a connection that began at `began`."""

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
        """Return when the next action is due."""
        times = [self._ends, self.began + (self._pings + 1) * self.venue.ping_interval_seconds]
        if self._notice is not None:
            times.append(self._notice)
        if self._unanswered:
            times.append(min(self._unanswered.values()) + self.venue.pong_deadline_seconds)
        return min(times)

    def due(self, now: float) -> Due | None:
        """Return the action due at `now`, the most severe first; call again until None."""
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
        """Note that a ping with `payload` was sent."""
        self._unanswered.setdefault(payload, now)

    def ponged(self, payload: bytes) -> None:
        """Note a pong: it confirms its own ping and those before it, or every ping where no echo is required."""
        if not self.venue.echo_required:
            self._unanswered.clear()
        elif payload in self._unanswered:
            answered = self._unanswered[payload]
            self._unanswered = {key: sent for key, sent in self._unanswered.items() if sent > answered}
