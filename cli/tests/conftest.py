"""What the tests of the command line share."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from marketfeed_cli.process import Parts


@pytest.fixture
async def parts(tmp_path: Path) -> AsyncIterator[Parts]:
    """Processes of one test, logged into its folder; none outlives it."""
    folder = tmp_path / "logs"
    folder.mkdir()
    async with Parts(folder) as running:
        yield running


@pytest.fixture(scope="session")
def recording() -> Path:
    """98,371 recorded frames; skips where the recordings are not beside the repository."""
    name = "binance-spot-btcusdt-ethusdt-20240809.frames.gz"
    path = Path(__file__).parents[3] / "shared" / "recordings" / name
    if not path.exists():
        pytest.skip(f"the recorded market data is not here: {name} is looked for in ../shared/recordings")
    return path
