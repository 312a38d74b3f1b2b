"""Active faults of requests: handshakes rejected, REST responses late or wrong. No I/O."""

from dataclasses import dataclass, field
from typing import Generic, TypeVar

from marketfeed_simulator.faults import Refuse, RestDelay, RestError

F = TypeVar("F", Refuse, RestDelay, RestError)


@dataclass(slots=True)
class Counted(Generic[F]):
    """A fault that applies `fault.count` times, or until it is removed."""

    fault: F
    hits: int = 0

    @property
    def exhausted(self) -> bool:
        """Whether the fault has been applied `fault.count` times."""
        return self.fault.count is not None and self.hits >= self.fault.count


@dataclass(slots=True)
class RequestFaults:
    """The active request faults.

    Attributes:
        odd_rows: symbol and trade id of REST rows with a price in an undocumented format.
        lag_seconds: delay from a trade on the stream to the same trade in REST.
        milliseconds_only: connections that request microseconds receive milliseconds.
    """

    refusals: list[Counted[Refuse]] = field(default_factory=list)
    delays: list[Counted[RestDelay]] = field(default_factory=list)
    errors: list[Counted[RestError]] = field(default_factory=list)
    odd_rows: set[tuple[str, int]] = field(default_factory=set)
    lag_seconds: float = 0.0
    milliseconds_only: bool = False

    def refusal(self) -> Refuse | None:
        """Return the fault that rejects the current handshake, if any, and count it."""
        return _strike(self.refusals)

    def delay_seconds(self, endpoint: str) -> float:
        """Return the delay of a response of `endpoint`, and count it."""
        fault = _strike(self.delays, endpoint)
        return fault.seconds if fault else 0

    def error(self, endpoint: str) -> RestError | None:
        """Return the fault that replaces a response of `endpoint`, if any, and count it."""
        return _strike(self.errors, endpoint)


def _strike(counted: list[Counted[F]], endpoint: str = "") -> F | None:
    for entry in counted:
        aimed = getattr(entry.fault, "endpoint", "")
        if not entry.exhausted and aimed in ("", endpoint):
            entry.hits += 1
            return entry.fault
    return None
