"""What a worker's probes say."""

import pytest

from marketfeed_workers.status import STUCK_AFTER_SECONDS, check_event_loop


@pytest.mark.parametrize(
    ("silent_seconds", "drain_seconds", "is_well"),
    [
        pytest.param(STUCK_AFTER_SECONDS - 1, 0, True, id="a loop that ran a moment ago"),
        pytest.param(STUCK_AFTER_SECONDS, 0, False, id="a loop that is stuck"),
        pytest.param(120, 120, True, id="a drain within its deadline"),
        pytest.param(120 + STUCK_AFTER_SECONDS, 120, False, id="a drain that does not end"),
    ],
)
def test_status_event_loop_may_block_during_a_drain(
    silent_seconds: float, drain_seconds: float, is_well: bool
) -> None:
    assert check_event_loop(silent_seconds, drain_seconds).ok is is_well
