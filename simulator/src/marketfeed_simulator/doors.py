"""The faults at the venue's doors: connections refused at the handshake, REST answers late or wrong. No I/O."""

from dataclasses import dataclass, field
from typing import Generic, TypeVar

from marketfeed_simulator.faults import Refuse, RestDelay, RestError

F = TypeVar("F", Refuse, RestDelay, RestError)


@dataclass(slots=True)
class Counted(Generic[F]):
    """A fault that strikes `fault.count` times, or until it is removed."""

    fault: F
    hits: int = 0

    @property
    def exhausted(self) -> bool:
        """Whether it struck as often as it should."""
        return self.fault.count is not None and self.hits >= self.fault.count


@dataclass(slots=True)
class Doors:
    """The faults now at the doors.

    Attributes:
        odd_rows: symbol and trade id of rows whose price REST writes in no documented way.
        lag_seconds: how much later than the streams REST knows of a trade.
        milliseconds_only: connections that ask for microseconds do not get them.
    """

    refusals: list[Counted[Refuse]] = field(default_factory=list)
    delays: list[Counted[RestDelay]] = field(default_factory=list)
    errors: list[Counted[RestError]] = field(default_factory=list)
    odd_rows: set[tuple[str, int]] = field(default_factory=set)
    lag_seconds: float = 0.0
    milliseconds_only: bool = False

    def refusal(self) -> Refuse | None:
        """The fault that refuses the connection that asks now, if any; counts it."""
        return _strike(self.refusals)

    def delay_seconds(self, endpoint: str) -> float:
        """How late the answer of `endpoint` is; counts it."""
        fault = _strike(self.delays, endpoint)
        return fault.seconds if fault else 0

    def error(self, endpoint: str) -> RestError | None:
        """The fault that answers in place of `endpoint`, if any; counts it."""
        return _strike(self.errors, endpoint)


def _strike(counted: list[Counted[F]], endpoint: str = "") -> F | None:
    for entry in counted:
        aimed = getattr(entry.fault, "endpoint", "")
        if not entry.exhausted and aimed in ("", endpoint):
            entry.hits += 1
            return entry.fault
    return None
