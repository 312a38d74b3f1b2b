"""What the operator tells about itself: probes and ``/status``. Asked from the health server's thread."""

import json
import time
from typing import Final

from marketfeed_chassis.health import Verdict
from marketfeed_operator.engine.canary import Canary
from marketfeed_operator.engine.leader import LeaderElection
from marketfeed_operator.store import Store

STUCK_SECONDS: Final = 30.0


class OperatorHealth:
    """See `Health`.

    Attributes:
        last_beat: the monotonic clock when the event loop last came round.
        watching: the store is filled and watches run; only ever so in a leader.
    """

    def __init__(self, identity: str, election: LeaderElection | None, canary: Canary, store: Store) -> None:
        self._identity = identity
        self._election = election
        self._canary = canary
        self._store = store
        self.last_beat = time.monotonic()
        self.watching = False
        self.stopping = False

    def livez(self) -> Verdict:
        """Whether the loop turns, and a canary's beat comes through API server, watch and queue."""
        stuck = time.monotonic() - self.last_beat
        if stuck > STUCK_SECONDS:
            return Verdict(False, f"the event loop has not come round for {stuck:.0f} s")
        return self._canary.verdict()

    def readyz(self) -> Verdict:
        """Whether this process acts, or would at once if the leader ended."""
        if self.stopping:
            return Verdict(False, "stopping")
        if self.watching:
            return Verdict(True)
        election = self._election
        if election is None or election.leading:
            return Verdict(False, "the watches are not up yet")
        silent = time.monotonic() - election.last_contact
        return Verdict(silent < STUCK_SECONDS, f"the API server has not answered for {silent:.0f} s")

    def status(self) -> bytes:
        """Who leads, and how many feeds there are."""
        leading = self._election is None or self._election.leading
        told = {
            "identity": self._identity,
            "leading": leading,
            "watching": self.watching,
            "feeds": len(self._store.feeds),
            "live": self.livez()._asdict(),
            "ready": self.readyz()._asdict(),
        }
        return json.dumps(told).encode()
