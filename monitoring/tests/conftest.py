"""Fixtures of the monitoring's tests: Prometheus' own programs."""

import os

import pytest

from marketfeed_monitoring import prometheus


@pytest.fixture(scope="session")
def programs() -> prometheus.Programs:
    """prometheus and promtool; skips where they cannot be had, which in CI is a failure."""
    try:
        return prometheus.programs()
    except prometheus.Unavailable as reason:
        if os.environ.get("CI") == "true":
            pytest.fail(str(reason))
        pytest.skip(str(reason))
