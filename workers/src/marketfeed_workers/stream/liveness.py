"""Liveness of a stream (trades or quotes of a symbol): stalled or idle. Pure: time is an argument.

    waiting ────message────▶ live ◀──────message, from every state
       │                      │ silent for longer than its bound: probe over REST
       └──── nothing newer ──▶ idle ◀──┘   nothing newer
    stalled      REST had newer data twice while the stream was silent; until a message or a new subscription
    unverified   silent, and no response of REST for another bound

`ready` is the rule of readiness and of warm-up: the stream has delivered since its subscription, or REST shows that
nothing newer exists.

Time advances only while sockets are read: a frozen process, or one that has paused reading, does not observe silence.
"""

from typing import Final, Literal

State = Literal["waiting", "live", "idle", "stalled", "unverified"]

DESCRIPTIONS: Final[dict[State, str]] = {
    "waiting": "has not delivered since it was subscribed",
    "live": "delivers",
    "idle": "is idle: the venue has nothing newer",
    "stalled": "is stalled: the venue has newer data",
    "unverified": "is silent for longer than usual, and REST does not respond",
}
"""State -> text for status and logs."""

MIN_BOUND_SECONDS: Final = 3.0
MAX_BOUND_SECONDS: Final = 900.0
FACTOR: Final = 20.0
"""With Poisson arrivals a silence of 20 mean intervals occurs once in e^20 = 5e8 intervals."""
AVERAGING_SECONDS: Final = 60.0
"""Time constant of the mean: older observations weigh less than 1/e."""
MAX_STEP: Final = 0.5
"""Maximum weight of one interval: the mean adapts to a quiet market in a few intervals, and one stall of an hour
changes it little."""
FIRST_PROBE_SECONDS: Final = 1.0
"""Delay of the first probe of a stream without messages after its subscription."""
CONFIRM_SECONDS: Final = 1.0
"""Delay of the probe that confirms a stall: a message may have been in flight."""
RETRY_SECONDS: Final = 5.0
"""Interval of probes of a stalled or unverified stream."""


class InterArrival:
    """Estimator of the mean interval between messages of a stream."""

    __slots__ = ("_observed", "_per_second", "_seen", "_updated")

    def __init__(self, seen: int, now: float) -> None:
        self._seen = seen
        self._updated = now
        self._observed = MIN_BOUND_SECONDS  # so that the first message is not taken as a rate
        self._per_second: float | None = None

    def observe(self, seen: int, now: float) -> None:
        """Update with the total number of received messages."""
        elapsed = now - self._updated
        # Silence is counted only when it ends: a stalled stream must not become idle with time.
        if seen == self._seen or elapsed <= 0:
            return
        rate = (seen - self._seen) / elapsed
        self._observed = min(AVERAGING_SECONDS, self._observed + elapsed)
        if self._per_second is None:
            self._per_second = (seen - self._seen) / max(elapsed, MIN_BOUND_SECONDS)
        else:
            self._per_second += min(MAX_STEP, elapsed / self._observed) * (rate - self._per_second)
        self._seen = seen
        self._updated = now

    def bound(self, unknown: float) -> float:
        """Return the seconds of silence before a probe; `unknown` without a history."""
        if not self._per_second:
            return unknown
        return min(MAX_BOUND_SECONDS, max(MIN_BOUND_SECONDS, FACTOR / self._per_second))

    @property
    def is_active(self) -> bool:
        """Whether messages are so frequent that silence is detected within seconds."""
        return bool(self._per_second) and self.bound(0) <= 2 * MIN_BOUND_SECONDS


class StreamLiveness:
    """The liveness of one stream.

    Args:
        seen: number of received messages.
        now: seconds; see the module's docstring.
        quiet_seconds: bound of a stream without a history (READY_QUIET_SECONDS).

    Attributes:
        state: see the module's docstring.
        is_new: neither a message nor a response of REST was received since the subscription.
        reference: newest trade or quote in REST while the stream was silent; None without one.
    """

    __slots__ = (
        "_arrivals",
        "_backoff",
        "_delivered",
        "_newer_responses",
        "_probed_at",
        "_quiet",
        "_seen",
        "_subscribed",
        "_verified",
        "is_new",
        "reference",
        "state",
    )

    def __init__(self, seen: int, now: float, quiet_seconds: float) -> None:
        self.state: State = "waiting"
        self.reference: object = None
        self._arrivals = InterArrival(seen, now)
        self._seen = seen
        self._quiet = quiet_seconds
        self._backoff = 1.0
        self._newer_responses = 0
        self.is_new = True
        self._subscribed = self._probed_at = self._delivered = self._verified = now

    def subscribe(self, now: float, *, verified: bool) -> None:
        """Start with a new session; `verified`: it delivers, or nothing newer exists."""
        self._subscribed = self._probed_at = self._verified = now
        self._newer_responses = 0
        if not verified:
            self.state, self.reference, self._backoff, self.is_new = "waiting", None, 1.0, True
        elif self.state not in ("idle", "unverified"):
            # An unverified stream stays so until a message or a response of REST.
            self.state = "live"

    def observe(self, seen: int, now: float) -> None:
        """Update with the total number of received messages."""
        if seen != self._seen:
            self._arrivals.observe(seen, now)
            self._seen = seen
            self._delivered = self._verified = now
            self.state, self.reference, self._backoff = "live", None, 1.0
            self._newer_responses, self.is_new = 0, False
        elif self.state in ("live", "idle") and now - self._verified > 2 * self.bound:
            self.state = "unverified"

    @property
    def ready(self) -> bool:
        """Whether the stream has delivered since its subscription, or REST shows that nothing newer exists."""
        return self.state in ("live", "idle")

    @property
    def bound(self) -> float:
        """Seconds without a message or a response of REST before a probe."""
        return min(MAX_BOUND_SECONDS, self._arrivals.bound(self._quiet) * self._backoff)

    @property
    def is_active(self) -> bool:
        """Whether messages are so frequent that silence is detected within seconds."""
        return self._arrivals.is_active

    def silent_seconds(self, now: float) -> float:
        """Return the seconds since the last message or the subscription."""
        return max(0.0, now - max(self._delivered, self._subscribed))

    def probe_due(self, now: float) -> bool:
        """Return whether a probe is due."""
        since = now - max(self._delivered, self._probed_at)
        if self._newer_responses and self.state != "stalled":
            return since >= CONFIRM_SECONDS
        match self.state:
            case "waiting":
                return since >= (FIRST_PROBE_SECONDS if self.is_new else self._quiet)
            case "stalled" | "unverified":
                return since >= RETRY_SECONDS
            case _:
                return since > self.bound

    def probing(self, now: float) -> None:
        """Note the start of a probe."""
        self._probed_at = now

    def on_nothing_newer(self, now: float) -> None:
        """Note that REST has nothing newer than the stream or the reference; back off."""
        self._probed_at = now
        self.is_new = False
        if self.state == "stalled":
            return  # its data was backfilled; only a message or a new subscription ends the stall
        self._verified = now
        self._newer_responses = 0
        if self.state == "idle":
            self._backoff = min(self._backoff * 2, MAX_BOUND_SECONDS / MIN_BOUND_SECONDS)
        self.state = "idle"

    def newer(self, newest: object, now: float) -> bool:
        """Note that REST has newer data than the stream; return whether this begins a stall.

        The first response after the subscription is only the reference: it may be older than that.
        """
        self._probed_at = now
        if self.is_new:
            self.is_new, self.reference = False, newest
            return False
        self._newer_responses += 1
        if self._newer_responses == 1 or self.state == "stalled":
            return False
        self.state = "stalled"
        return True

    def probe_failed(self, now: float) -> None:
        """Note that REST did not respond."""
        self._probed_at = now
        if self.state == "waiting" and now - self._subscribed > 2 * max(self._quiet, FIRST_PROBE_SECONDS):
            self.state = "unverified"
