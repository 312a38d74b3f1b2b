"""Configuration shared by the tests of every package."""

from typing import Final

import pytest
from hypothesis import HealthCheck, settings

# A shared or busy machine is slow at times, independent of the code: no test depends on timing.
settings.register_profile(
    "marketfeed", settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("marketfeed")

STARTERS: Final = frozenset(
    (
        *("shared_broker", "own_broker", "broker", "apache_kafka", "postgres", "api_server"),
        *("server", "database", "parts", "home", "programs", "tools"),
    )
)
"""Fixtures that start processes, or need programs that are downloaded or built first."""
STARTING_HELPERS: Final = frozenset(("workers_line",))
"""Test helpers that do the same."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark tests that start processes, by their fixtures; the rest are unit tests, which any Python can run."""
    for item in items:
        names = vars(item.module).values() if isinstance(item, pytest.Function) else ()
        helpers = {getattr(value, "__module__", "") for value in names}
        if STARTERS.intersection(getattr(item, "fixturenames", ())) or helpers & STARTING_HELPERS:
            item.add_marker("starts")
