"""Faults of a session: the simulator's own for the venue, and those of the host and of Kafka, defined here.

All have one format: a fault is a JSON object whose "fault" names its kind and whose `after_seconds` is its start, so
the venue's part of a plan is a scenario file of the simulator (`plan.scenario`).
"""

from typing import Annotated, Literal, TypeAlias

import msgspec

from marketfeed_simulator.faults import AnyFault, Chance, Fault, Positive, Seconds

__all__ = ["Chance", "EachFault", "HostFault", "Positive"]

Topic = Literal["trades", "book_ticker", "progress", "gaps"]


class Crash(Fault, frozen=True, kw_only=True, tag="crash"):
    """The process is killed (SIGKILL, power loss); the next one starts `pause_seconds` later."""

    pause_seconds: Seconds = 1.0


class Restart(Fault, frozen=True, kw_only=True, tag="restart"):
    """The process receives SIGTERM; the next one starts `pause_seconds` after its end."""

    pause_seconds: Seconds = 1.0


class Overlap(Fault, frozen=True, kw_only=True, tag="overlap"):
    """The next process starts while this one still runs, as beside a terminating pod; it is killed `seconds` later."""

    seconds: Seconds = 5.0


class ClockStep(Fault, frozen=True, kw_only=True, tag="clock_step"):
    """The host's wall clock is set by `seconds`."""

    seconds: float


class Freeze(Fault, frozen=True, kw_only=True, tag="freeze"):
    """The process is frozen for `seconds`: everything else continues."""

    seconds: Seconds


class KafkaOutage(Fault, frozen=True, kw_only=True, tag="kafka_outage"):
    """The brokers neither write nor acknowledge for `seconds`."""

    seconds: Seconds


class KafkaSlow(Fault, frozen=True, kw_only=True, tag="kafka_slow"):
    """Writes take about `delay_seconds`, acknowledgements about as long again, until the plan's faults end.

    `topics`: of these only, as when one broker is slow that leads them (none: of all).
    """

    delay_seconds: Annotated[float, msgspec.Meta(gt=0)]
    topics: tuple[Topic, ...] = ()


class KafkaRefuses(Fault, frozen=True, kw_only=True, tag="kafka_refuses"):
    """The next record of `topic` is rejected permanently."""

    topic: Topic


class Assign(Fault, frozen=True, kw_only=True, tag="assign"):
    """The assignment file (SYMBOLS_FILE) names `symbols` from now on; with `broken` it is truncated.

    A session with such a fault has its symbols from that file, all of them at first.
    """

    symbols: tuple[str, ...]
    broken: bool = False


HostFault: TypeAlias = (
    Crash | Restart | Overlap | ClockStep | Freeze | KafkaOutage | KafkaSlow | KafkaRefuses | Assign
)
EachFault: TypeAlias = AnyFault | HostFault


def kind_of(fault: Fault) -> str:
    """Return the name of a fault's kind."""
    return str(fault.__struct_config__.tag)


def begins(fault: Fault) -> float:
    """Return the start of a plan's fault, in seconds since the session began."""
    return fault.after_seconds or 0.0
