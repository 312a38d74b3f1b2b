"""Fixtures: the executables of Prometheus."""

import pytest

from marketfeed_devtools.programs import Unavailable
from marketfeed_devtools.skipping import skip_or_fail
from marketfeed_monitoring import prometheus


@pytest.fixture(scope="session")
def programs() -> prometheus.Programs:
    """Return prometheus and promtool; skip the test if they are unavailable, which is a failure in CI."""
    try:
        return prometheus.programs()
    except Unavailable as reason:
        skip_or_fail(reason)
