"""What the tests of the command line share."""

import stat
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from cli_home import Home

from marketfeed_cli.process import Parts


@pytest.fixture
async def parts(tmp_path: Path) -> AsyncIterator[Parts]:
    """Processes of one test, logged into its folder; none outlives it."""
    folder = tmp_path / "logs"
    folder.mkdir()
    async with Parts(folder) as running:
        yield running


@pytest.fixture
def open_folder(tmp_path: Path) -> Path:
    """A folder that another user can pass to: when we are root, PostgreSQL runs as that other user."""
    folder = tmp_path
    while not folder.stat().st_mode & stat.S_IXOTH:  # up to the machine's own folder for temporary files
        folder.chmod(folder.stat().st_mode | stat.S_IXOTH)
        folder = folder.parent
    return tmp_path


@pytest.fixture
def home(open_folder: Path) -> Iterator[Home]:
    """A place for runs of the command; whatever they leave is found there, and ended."""
    with Home(open_folder) as place:
        yield place


@pytest.fixture(scope="session")
def recording() -> Path:
    """98,371 recorded frames; skips where the recordings are not beside the repository."""
    name = "binance-spot-btcusdt-ethusdt-20240809.frames.gz"
    path = Path(__file__).parents[3] / "shared" / "recordings" / name
    if not path.exists():
        pytest.skip(f"the recorded market data is not here: {name} is looked for in ../shared/recordings")
    return path
