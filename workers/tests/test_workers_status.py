"""What a worker's probes say."""

import pytest

from marketfeed_workers.status import STUCK_AFTER_SECONDS, moves


@pytest.mark.parametrize(
    ("silent_seconds", "drain_seconds", "is_well"),
    [
        pytest.param(STUCK_AFTER_SECONDS - 1, 0, True, id="a loop that came round a moment ago"),
        pytest.param(STUCK_AFTER_SECONDS, 0, False, id="a loop that is stuck"),
        pytest.param(120, 120, True, id="a drain within its deadline"),
        pytest.param(120 + STUCK_AFTER_SECONDS, 120, False, id="a drain that does not end"),
    ],
)
def test_a_loop_may_stand_still_for_as_long_as_a_drain_may_take(
    silent_seconds: float, drain_seconds: float, is_well: bool
) -> None:
    assert moves(silent_seconds, drain_seconds).ok is is_well
