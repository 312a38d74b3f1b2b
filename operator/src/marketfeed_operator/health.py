"""Probes and ``/status`` of the operator, called from the health server's thread."""

import json
import time
from typing import Final

from marketfeed_operator.engine.leader import LeaderElection
from marketfeed_operator.leadership import Leadership
from marketfeed_operator.store import Store
from marketfeed_service.health import ProbeResult

STUCK_SECONDS: Final = 30.0


class OperatorHealth:
    """See `Health`.

    Args:
        deadline_seconds: maximum time that feeds may be due without a finished reconciliation.

    Attributes:
        last_heartbeat: monotonic time of the last heartbeat of the event loop.
        leadership: set while this process leads.
    """

    def __init__(
        self, identity: str, election: LeaderElection | None, store: Store, deadline_seconds: float
    ) -> None:
        self._identity = identity
        self._election = election
        self._store = store
        self._deadline_seconds = deadline_seconds
        self.last_heartbeat = time.monotonic()
        self.leadership: Leadership | None = None
        self.stopping = False

    def livez(self) -> ProbeResult:
        """Return whether the event loop runs, the watches are alive and the queue progresses."""
        stuck = time.monotonic() - self.last_heartbeat
        if stuck > STUCK_SECONDS:
            return ProbeResult(False, f"the event loop has been blocked for {stuck:.0f} s")
        leadership = self.leadership
        if leadership is None:
            return ProbeResult(True)
        stalled = leadership.workers.stalled_seconds()
        if stalled > self._deadline_seconds:
            return ProbeResult(False, f"feeds are due, and none has been reconciled for {stalled:.0f} s")
        return leadership.watches.verdict()

    def readyz(self) -> ProbeResult:
        """Return whether this process leads, or is a standby that would lead at once."""
        if self.stopping:
            return ProbeResult(False, "stopping")
        if self.leadership is not None:
            return ProbeResult(True)
        election = self._election
        if election is None or election.leading:
            return ProbeResult(False, "the watches are not established yet")
        silent = time.monotonic() - election.last_contact
        return ProbeResult(silent < STUCK_SECONDS, f"no response from the API server for {silent:.0f} s")

    def status(self) -> bytes:
        """Return leader, number of feeds and unavailable namespaces as JSON."""
        leadership = self.leadership
        body = {
            "identity": self._identity,
            "leading": self._election is None or self._election.leading,
            # Not in /readyz: a new release with another scope must become ready before the old one ends.
            "leaderServesOther": self._election.misplaced if self._election else "",
            "watching": leadership is not None,
            "feeds": len(self._store.feeds),
            "unavailableNamespaces": dict(leadership.scopes.problems) if leadership else {},
            "watchAgeSeconds": round(leadership.watches.oldest_seconds(), 1) if leadership else None,
            "otherOperators": leadership.namespace_leases.others() if leadership else [],
            "live": self.livez()._asdict(),
            "ready": self.readyz()._asdict(),
        }
        return json.dumps(body).encode()
