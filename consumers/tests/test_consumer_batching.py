"""A batch is due when it is full, old enough, or caught up and lingered."""

from dataclasses import replace

import pytest
from confluent_kafka import Message as Record
from consumer_market import record, trade
from hypothesis import given
from hypothesis import strategies as st

from marketfeed_consumers.kafka.batching import BatchFill, BatchLimits, RowLimit, is_due, wait_seconds
from marketfeed_consumers.kafka.reader import IDLE_SECONDS, Reader
from marketfeed_consumers.settings import ConsumerSettings
from marketfeed_consumers.state import State
from marketfeed_service import settings

BOUNDS = BatchLimits(max_rows=100, max_seconds=1.0, linger_seconds=0.5)
LINGERING = BatchFill(rows=1, size_bytes=10, age_seconds=0.4, caught_up=True, writer_idle=True)


@pytest.mark.parametrize(
    ("fill", "due"),
    [
        pytest.param(replace(LINGERING, rows=0), False, id="nothing"),
        pytest.param(LINGERING, False, id="lingering"),
        pytest.param(replace(LINGERING, age_seconds=0.5), True, id="lingered"),
        pytest.param(replace(LINGERING, age_seconds=0.9, caught_up=False), False, id="more to read"),
        pytest.param(replace(LINGERING, age_seconds=0.9, writer_idle=False), False, id="database busy"),
        pytest.param(replace(LINGERING, age_seconds=1.0, caught_up=False), True, id="old"),
        pytest.param(replace(LINGERING, rows=100, age_seconds=0.0), True, id="full"),
    ],
)
def test_batch_is_due(fill: BatchFill, due: bool) -> None:
    assert is_due(fill, BOUNDS) is due


def test_batch_wait_is_the_remaining_linger_time_and_bounded() -> None:
    """Regression: a stop waited for BATCH_LINGER_MS, up to a minute."""
    assert wait_seconds(LINGERING, BOUNDS, IDLE_SECONDS) == pytest.approx(0.1)
    assert wait_seconds(replace(LINGERING, age_seconds=2.0), BOUNDS, IDLE_SECONDS) == 0.0
    long = BatchLimits(max_rows=100, max_seconds=60.0, linger_seconds=60.0)
    for idle in (True, False):
        assert wait_seconds(replace(LINGERING, writer_idle=idle), long, IDLE_SECONDS) == IDLE_SECONDS


@given(st.integers(1, 5_000), st.floats(0.0001, 0.1), st.floats(0.05, 10.0))
def test_batch_row_limit_converges_to_a_size_within_the_timeout(
    max_rows: int, seconds_a_row: float, timeout_seconds: float
) -> None:
    pace = RowLimit(max_rows)
    timeouts = 0
    for _ in range(60):
        seconds = pace.rows * seconds_a_row
        if seconds > timeout_seconds:
            timeouts += 1
            pace.timed_out(pace.rows, timeout_seconds)
        else:
            pace.stored(pace.rows, seconds)
    allowed = min(max_rows, timeout_seconds / seconds_a_row)
    assert timeouts <= max_rows.bit_length() or allowed < 1
    assert pace.rows >= max(1, int(allowed * 0.4))


class Fed(Reader):
    """Return a reader with a client that is not connected; the test adds records to its batch."""

    def feed(self, *records: Record) -> None:
        self._take(records)


@pytest.mark.parametrize(("linger_ms", "due"), [("0", True), ("60000", False)])
def test_batch_lingers_for_batch_linger_ms(linger_ms: str, due: bool) -> None:
    environment = {
        "DATABASE_URL": "postgresql://nobody@localhost/none",
        "KAFKA_BROKER": "127.0.0.1:1",
        "BATCH_LINGER_MS": linger_ms,
        "BATCH_MAX_MS": "60000",
    }
    reader = Fed(settings.read(ConsumerSettings, environment), State())
    try:
        reader.feed(record(trade(1), 0, "market.trades.raw"))
        assert is_due(reader.fill(writer_idle=True), reader.bounds) is due
    finally:
        reader.client.close()
