"""Fixtures of the worker's tests: recorded frames, settings, brokers."""

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import uvloop
from workers_support import MakeSettings

from marketfeed_devtools.mock_broker import Broker
from marketfeed_service import settings as service_settings
from marketfeed_workers.settings import WorkerSettings

RECORDINGS = Path(__file__).parents[3] / "shared" / "recordings"


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Run asynchronous tests on uvloop, as the worker."""
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture
def recording() -> Callable[[str], Path]:
    """Return the path of a recording; skip if the recordings are not beside the repository."""

    def find(name: str) -> Path:
        path = RECORDINGS / name
        if not path.exists():
            pytest.skip(f"the recorded market data is not here: {name} is looked for in ../shared/recordings")
        return path

    return find


@pytest.fixture
def make_settings() -> MakeSettings:
    """Create settings from variables: ``make_settings(KAFKA_ACKS="1")``; two symbols by default."""

    def make(**variables: str) -> WorkerSettings:
        return service_settings.read(WorkerSettings, {"BINANCE_SYMBOLS": "BTCUSDT,ETHUSDT", **variables})

    return make


@pytest.fixture(scope="session")
def shared_broker() -> Iterator[Broker]:
    """A shared broker for tests that use their own topics and do not disturb it."""
    with Broker() as broker:
        yield broker


@pytest.fixture
def own_broker() -> Iterator[Broker]:
    """A broker for one test with broker faults."""
    with Broker() as broker:
        yield broker
