"""What can go wrong between a batch and its COMMIT, and what follows from it.

Exception
├── ServiceError (service)
│   ├── StartupError        exit 1: broker, database or schema not as they must be at start
│   ├── LogLost             exit 1: Kafka lacks what was read; stored beside the offset until reset-offsets
│   ├── Refused             exit 1: the database refuses message after message: the fault is not theirs
│   └── Fenced              exit 1: another consumer owns the partition now; our batch is dropped
└── BatchError              the batch was not stored; the loop decides
    ├── StaleKnowledge      what we believed to be stored has changed: read it again, plan again
    ├── BadData             the database refuses a row (classes 22, 23, P0): find it, dead-letter it, plan again
    ├── TimedOut            a timeout of the database's has ended it: in halves
    └── Abandoned           told to stop trying (revoked, or the drain deadline): the batch is dropped
        └── Overtaken       an earlier attempt of ours was committed without our hearing of it: read on from there

Nothing is lost by dropping a batch: its offsets were not stored either, so it is read again.
"""

from collections.abc import Mapping

from marketfeed_service.errors import ServiceError


class Fenced(ServiceError):
    """Another consumer has taken over a partition that this process believed to own.

    Its text names the partition and the new owner; nothing of the batch was written.
    """


class LogLost(ServiceError):
    """Partitions must not be read on from their stored offsets.

    Attributes:
        reasons: (topic, partition) -> why, with the way out.
    """

    def __init__(self, reasons: Mapping[tuple[str, int], str]) -> None:
        super().__init__("; ".join(reasons.values()))
        self.reasons = reasons


class QuarantineLimitExceeded(ServiceError):
    """The database has refused message after message, and stored none in between."""


class BatchError(Exception):
    """Base of what a batch may end in besides being stored."""


class StaleRanges(BatchError):
    """What the batch was planned on is not so (any more).

    Attributes:
        verify_rows: a row that should have been new was there: somebody else writes to the table, so look every
            row up; otherwise a high-water mark was changed since it was read, and reading it again is enough.
    """

    def __init__(self, *, verify_rows: bool = False) -> None:
        super().__init__(f"distrust={verify_rows}")
        self.verify_rows = verify_rows


class DataRejected(BatchError):
    """The database refuses the batch's content.

    Attributes:
        sqlstate: the class 22 or 23 code.
        reason: the database's own words and the code.
    """

    def __init__(self, sqlstate: str, reason: str) -> None:
        super().__init__(reason)
        self.sqlstate = sqlstate
        self.reason = reason


class TimedOut(BatchError):
    """A timeout of the database's has ended the transaction.

    Attributes:
        seconds: how long it had taken.
    """

    def __init__(self, seconds: float, reason: str) -> None:
        super().__init__(reason)
        self.seconds = seconds


class Abandoned(BatchError):
    """The attempt was given up because the process was told to; the batch will be read again."""


class AlreadyCommitted(Abandoned):
    """What is stored under our own epoch is ahead of what the batch goes on from.

    An earlier attempt was committed without our hearing of it, and was then given up or done over in parts.

    Attributes:
        positions: (topic, partition) -> its next offset and leader epoch as stored.
    """

    def __init__(self, positions: Mapping[tuple[str, int], tuple[int, int]]) -> None:
        super().__init__(f"positions={dict(positions)}")
        self.positions = positions
