"""Batch limits: pure functions that decide when a batch is full or due, with the clock passed in."""

from dataclasses import dataclass
from typing import Final

CHUNK_ROWS: Final = 2_000
"""Maximum records per consume call: enough to amortise the call, few enough to handle a signal soon."""

MAX_BYTES: Final = 16 * 1024 * 1024
"""Maximum size of a batch's values, whatever its rows: bounds memory for large messages."""

_LEAST_WAIT_SECONDS: Final = 0.002


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """Maximum size and age of a batch; see the BATCH_… settings."""

    max_rows: int
    max_seconds: float
    linger_seconds: float


@dataclass(frozen=True, slots=True)
class BatchFill:
    """The state of the batch that is being filled.

    Attributes:
        age_seconds: time since its first record was read.
        caught_up: whether the last poll returned fewer records than requested.
        writer_idle: whether the writer has no work.
    """

    rows: int
    size_bytes: int
    age_seconds: float
    caught_up: bool
    writer_idle: bool


class RowLimit:
    """The maximum rows of a batch, reduced while the database's timeouts end larger transactions.

    Halved after a timeout; doubled when a full batch took so little of the timed-out duration that twice the rows would
    fit.

    Attributes:
        rows: the current maximum.
    """

    def __init__(self, max_rows: int) -> None:
        self.rows = max_rows
        self._max_rows = max_rows
        self._timeout_seconds = 0.0

    def timed_out(self, rows: int, seconds: float) -> None:
        """Reduce the limit: a batch of `rows` timed out after `seconds`."""
        self.rows = max(1, min(self.rows, rows // 2))
        self._timeout_seconds = seconds

    def stored(self, rows: int, seconds: float) -> None:
        """Raise the limit if possible: a batch of `rows` was stored within `seconds`."""
        if rows >= self.rows and seconds < 0.4 * self._timeout_seconds:
            self.rows = min(self._max_rows, 2 * self.rows)


def is_full(fill: BatchFill, bounds: BatchLimits) -> bool:
    """Return whether the batch has reached a size limit."""
    return fill.rows >= bounds.max_rows or fill.size_bytes >= MAX_BYTES


def is_due(fill: BatchFill, bounds: BatchLimits) -> bool:
    """Return whether to store the batch now.

    With lag the batch fills up, as large batches are cheaper. Caught up, it is due when the writer is idle and the
    linger time has passed; while the writer is busy it keeps filling, as it could not be stored sooner.
    """
    if fill.rows == 0:
        return False
    if is_full(fill, bounds) or fill.age_seconds >= bounds.max_seconds:
        return True
    return fill.caught_up and fill.writer_idle and fill.age_seconds >= bounds.linger_seconds


def wait_seconds(fill: BatchFill, bounds: BatchLimits, max_seconds: float) -> float:
    """Return how long to wait for more records before the batch is checked again, at most `max_seconds`.

    Args:
        fill: the current batch.
        bounds: the batch limits.
        max_seconds: the maximum.
    """
    if not fill.writer_idle:
        # Short, to notice when the writer finishes; never 0, which would be a busy loop.
        return min(max(_LEAST_WAIT_SECONDS, bounds.linger_seconds), max_seconds)
    return min(max(0.0, bounds.linger_seconds - fill.age_seconds), max_seconds)
