"""Whether a stream (the trades or the quotes of a symbol) delivers what the venue has. Pure: time is handed in.

    waiting ────message────▶ live ◀──────message, from every state
       │                      │ silent for longer than its bound: REST is asked
       └──── nothing newer ──▶ idle ◀──┘   nothing newer
    stalled      REST showed something newer, twice, and the stream stayed silent; until a message or a new subscription
    unverified   silent, and REST has not answered for as long again

`ready` is the one rule of readiness and of warm-up: the stream has delivered since it was subscribed, or REST shows
that nothing newer exists.

Seconds are those of a clock that goes on only while sockets are read: a process that was frozen, or that holds its
sockets back, has not observed any silence.
"""

from typing import Final, Literal

State = Literal["waiting", "live", "idle", "stalled", "unverified"]

MIN_BOUND_SECONDS: Final = 3.0
MAX_BOUND_SECONDS: Final = 900.0
FACTOR: Final = 20.0
"""For arrivals at random (Poisson) a silence of 20 mean intervals comes once in e^20 = 5e8 intervals."""
AVERAGING_SECONDS: Final = 60.0
"""Observations older than this weigh less than 1/e in the mean."""
MAX_STEP: Final = 0.5
"""How far one interval can move the mean: a market that became quiet is learned in a few, a stream that was stalled for
an hour leaves its history nearly as it was."""
FIRST_PROBE_SECONDS: Final = 1.0
"""How soon after the subscription REST is asked for what was newest then, where nothing has been delivered."""
CONFIRM_SECONDS: Final = 1.0
"""After this long REST is asked once more before a stream counts as stalled: a message may have been on its way."""
RETRY_SECONDS: Final = 5.0
"""How often REST is asked about a stream that is stalled or cannot be verified."""


class InterArrival:
    """Estimates the mean interval between the messages of one stream."""

    __slots__ = ("_observed", "_per_second", "_seen", "_updated")

    def __init__(self, seen: int, now: float) -> None:
        self._seen = seen
        self._updated = now
        self._observed = MIN_BOUND_SECONDS  # so that the first message does not look like a rate
        self._per_second: float | None = None

    def observe(self, seen: int, now: float) -> None:
        """Take in that `seen` messages have been received in all."""
        elapsed = now - self._updated
        # A silence teaches nothing before it ends: a stalled stream must not come to look idle with time.
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
        """Return after how many seconds of silence REST is asked; `unknown` without a history."""
        if not self._per_second:
            return unknown
        return min(MAX_BOUND_SECONDS, max(MIN_BOUND_SECONDS, FACTOR / self._per_second))

    @property
    def is_active(self) -> bool:
        """Whether messages come often enough that their absence is noticed within seconds."""
        return bool(self._per_second) and self.bound(0) <= 2 * MIN_BOUND_SECONDS


class StreamLiveness:
    """The liveness of one stream.

    Args:
        seen: messages received so far.
        now: seconds, see the module's text.
        quiet_seconds: the bound of a stream without a history (READY_QUIET_SECONDS).

    Attributes:
        state: see the module's text.
        is_new: neither a message nor a response of REST has come since the subscription.
        reference: the newest (trade, quote) that REST has shown while the stream delivered nothing; None before.
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
        """Begin anew: another session carries the stream; `verified`: it delivers, or nothing newer exists."""
        self._subscribed = self._probed_at = self._verified = now
        self._newer_responses = 0
        if not verified:
            self.state, self.reference, self._backoff, self.is_new = "waiting", None, 1.0, True
        elif self.state not in ("idle", "unverified"):
            # Where REST does not respond nobody knows that nothing newer exists: a message shows it, or its response.
            self.state = "live"

    def observe(self, seen: int, now: float) -> None:
        """Take in that `seen` messages have been received in all."""
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
        """Whether it has delivered since it was subscribed, or REST shows that nothing newer exists."""
        return self.state in ("live", "idle")

    @property
    def bound(self) -> float:
        """After how many seconds without a message or a response of REST, REST is asked."""
        return min(MAX_BOUND_SECONDS, self._arrivals.bound(self._quiet) * self._backoff)

    @property
    def is_active(self) -> bool:
        """Whether its messages come often enough that their absence is noticed within seconds."""
        return self._arrivals.is_active

    def silent_seconds(self, now: float) -> float:
        """How long it has delivered nothing; since its subscription at most."""
        return max(0.0, now - max(self._delivered, self._subscribed))

    def probe_due(self, now: float) -> bool:
        """Whether REST is to be asked for the newest that the venue has."""
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
        """Note that REST is being asked."""
        self._probed_at = now

    def on_nothing_newer(self, now: float) -> None:
        """Take in that REST shows nothing newer than what was delivered, or than the reference; ask less often."""
        self._probed_at = now
        self.is_new = False
        if self.state == "stalled":
            return  # what it lacked has been fetched; only a message or a new subscription ends this
        self._verified = now
        self._newer_responses = 0
        if self.state == "idle":
            self._backoff = min(self._backoff * 2, MAX_BOUND_SECONDS / MIN_BOUND_SECONDS)
        self.state = "idle"

    def newer(self, newest: object, now: float) -> bool:
        """Take in that REST shows something newer than what was delivered; return whether the stream stalls just now.

        The first response after the subscription is only the reference: it may be from before.
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
        """Take in that REST did not answer."""
        self._probed_at = now
        if self.state == "waiting" and now - self._subscribed > 2 * max(self._quiet, FIRST_PROBE_SECONDS):
            self.state = "unverified"
