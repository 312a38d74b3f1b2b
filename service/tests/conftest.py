"""Shared fixtures: logging is restored after each test that configures it."""

import logging
import sys
from collections.abc import Iterator

import pytest
import structlog

from marketfeed_service import logs


@pytest.fixture
def own_logging(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let the test call `logs.configure`."""
    root = logging.getLogger()
    level = root.level
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    monkeypatch.setattr(logs, "_active", None)
    yield
    if logs._active is not None:
        root.removeHandler(logs._active[0])
    root.setLevel(level)
    logging.captureWarnings(capture=False)
    structlog.reset_defaults()
