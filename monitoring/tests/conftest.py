"""Fixtures of the monitoring's tests: Prometheus' own programs."""

import pytest

from marketfeed_devtools.programs import Unavailable
from marketfeed_devtools.skipping import skip_or_fail
from marketfeed_monitoring import prometheus


@pytest.fixture(scope="session")
def programs() -> prometheus.Programs:
    """prometheus and promtool; skips where they cannot be had, which in CI is a failure."""
    try:
        return prometheus.programs()
    except Unavailable as reason:
        skip_or_fail(reason)
