"""Errors between reading a batch and its COMMIT, and their handling.

Exception
├── ServiceError (service)
│   ├── StartupError                exit 1: broker, database or schema unusable at start
│   ├── LogLost                     exit 1: Kafka's log lacks stored offsets; stored as a refusal until reset-offsets
│   ├── QuarantineLimitExceeded     exit 1: the database rejects every message: the cause is not the messages
│   └── Fenced                      exit 1: another consumer has a newer ownership epoch; the batch is dropped
└── BatchError                      the batch was not stored; the loop handles it
    ├── StaleRanges                 the stored ranges have changed: load them again, plan again
    ├── DataRejected                the database rejects a row (classes 22, 23, P0): isolate it, plan again
    ├── TimedOut                    a timeout of the database ended the transaction: split the batch
    └── Abandoned                   retries were given up (revoked, or the drain deadline): the batch is dropped
        └── AlreadyCommitted        an earlier attempt was committed with an unknown outcome: continue from there

A dropped batch is not lost: its offsets were not committed either, so it is read again.
"""

from collections.abc import Mapping

from marketfeed_service.errors import ServiceError


class Fenced(ServiceError):
    """Another consumer has acquired the lease of a partition with a newer ownership epoch.

    The text has the partition and the new owner; nothing of the batch was written.
    """


class LogLost(ServiceError):
    """Partitions must not be consumed from their stored offsets.

    Attributes:
        reasons: (topic, partition) -> the reason, with the command that fixes it.
    """

    def __init__(self, reasons: Mapping[tuple[str, int], str]) -> None:
        super().__init__("; ".join(reasons.values()))
        self.reasons = reasons


class QuarantineLimitExceeded(ServiceError):
    """The database has rejected several messages in a row and stored none in between."""


class BatchError(Exception):
    """Base class of the errors of a batch that was not stored."""


class StaleRanges(BatchError):
    """The batch was planned on stored ranges that are not current.

    Attributes:
        verify_rows: whether a row that was planned as new exists: another process writes to the table, so every row
            must be looked up. Otherwise a high-water mark has changed, and loading it again is enough.
    """

    def __init__(self, *, verify_rows: bool = False) -> None:
        super().__init__(f"verify_rows={verify_rows}")
        self.verify_rows = verify_rows


class DataRejected(BatchError):
    """The database rejects the batch's content.

    Attributes:
        sqlstate: the code of class 22, 23 or P0.
        reason: the database's message and the code.
    """

    def __init__(self, sqlstate: str, reason: str) -> None:
        super().__init__(reason)
        self.sqlstate = sqlstate
        self.reason = reason


class TimedOut(BatchError):
    """A timeout of the database has ended the transaction.

    Attributes:
        seconds: duration until the timeout.
    """

    def __init__(self, seconds: float, reason: str) -> None:
        super().__init__(reason)
        self.seconds = seconds


class Abandoned(BatchError):
    """Retries were given up by the loop; the batch will be read again."""


class AlreadyCommitted(Abandoned):
    """The stored offsets of our own epoch are ahead of the batch's expected offsets.

    An earlier attempt was committed, but its outcome was unknown here, and it was then given up or split.

    Attributes:
        positions: (topic, partition) -> stored next offset and leader epoch.
    """

    def __init__(self, positions: Mapping[tuple[str, int], tuple[int, int]]) -> None:
        super().__init__(f"positions={dict(positions)}")
        self.positions = positions
