"""Fixtures of the command line's tests."""

import stat
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from cli_home import Home

from marketfeed_cli.process import Parts


@pytest.fixture
async def parts(tmp_path: Path) -> AsyncIterator[Parts]:
    """Yield the processes of a test, with logs in its folder; all are stopped at its end."""
    folder = tmp_path / "logs"
    folder.mkdir()
    async with Parts(folder) as running:
        yield running


@pytest.fixture
def open_folder(tmp_path: Path) -> Path:
    """Return a folder that other users can access, because PostgreSQL runs as another user for root."""
    folder = tmp_path
    while not folder.stat().st_mode & stat.S_IXOTH:  # up to the system's temporary folder
        folder.chmod(folder.stat().st_mode | stat.S_IXOTH)
        folder = folder.parent
    return tmp_path


@pytest.fixture
def home(open_folder: Path) -> Iterator[Home]:
    """Yield a folder for runs of the command; leftover processes are killed."""
    with Home(open_folder) as place:
        yield place


@pytest.fixture(scope="session")
def recording() -> Path:
    """Return a recording of 98,371 frames; skip if it is not available beside the repository."""
    name = "binance-spot-btcusdt-ethusdt-20240809.frames.gz"
    path = Path(__file__).parents[3] / "shared" / "recordings" / name
    if not path.exists():
        pytest.skip(f"the recording {name} is not in ../shared/recordings")
    return path
