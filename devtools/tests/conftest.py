"""Fixtures of the tests of the development tools."""

from pathlib import Path

import pytest


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Set an empty cache folder for the test."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("MARKETFEED_CACHE", str(folder))
    return folder
