"""Fixtures of the simulator's tests: a venue in this process on a free port, and real clients."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from marketfeed_simulator.options import parser, plan_of
from marketfeed_simulator.server import Simulator

RECORDING = "binance-spot-btcusdt-ethusdt-20240809.frames.gz"


@pytest.fixture(scope="session")
def recorded() -> Path:
    """Return the recording of 98,371 frames of two symbols, from the folder beside the repository."""
    path = Path(__file__).resolve().parents[2].parent / "shared" / "recordings" / RECORDING
    if not path.exists():
        pytest.skip(f"the recording {RECORDING} is not in ../shared/recordings")
    return path


class Venue:
    """A running simulator and a client session."""

    def __init__(self, simulator: Simulator, session: aiohttp.ClientSession) -> None:
        self.simulator = simulator
        self.session = session
        self.http = f"http://127.0.0.1:{simulator.port}"
        self.ws = f"ws://127.0.0.1:{simulator.port}"

    def connect(self, path: str, **options: Any) -> Any:
        return self.session.ws_connect(self.ws + path, **options)

    async def get(self, path: str, **options: Any) -> tuple[int, Any]:
        async with self.session.get(self.http + path, **options) as response:
            return response.status, await response.json(content_type=None)

    async def fault(self, **fields: Any) -> dict[str, Any]:
        async with self.session.post(f"{self.http}/control/faults", json=fields) as response:
            body: dict[str, Any] = await response.json()
            assert response.status == 200, body
            return body

    async def ledger(self) -> dict[str, Any]:
        return dict((await self.get("/control/ledger"))[1])

    async def request(self, ws: aiohttp.ClientWebSocketResponse, **fields: Any) -> Any:
        """Send a request and return the next message that is a reply."""
        await ws.send_json(fields)
        while True:
            message = await ws.receive_json(timeout=5)
            if "stream" not in message and "s" not in message:
                return message


@pytest.fixture
async def start() -> AsyncIterator[Callable[..., Awaitable[Venue]]]:
    """Start simulators from command line arguments; stop them at the end."""
    async with AsyncExitStack() as stack:
        session = await stack.enter_async_context(aiohttp.ClientSession())

        async def begin(*arguments: object) -> Venue:
            plan = plan_of(parser().parse_args([str(argument) for argument in arguments]))
            simulator = Simulator(plan, host="127.0.0.1", port=0)
            return Venue(await stack.enter_async_context(simulator), session)

        yield begin


def _trade(symbol: str, number: int, time_ms: int) -> dict[str, Any]:
    return {
        "stream": f"{symbol.lower()}@trade",
        "data": {
            "e": "trade",
            "E": time_ms,
            "s": symbol,
            "t": number,
            "p": "1.50000000",
            "q": "2.00000000",
            "T": time_ms,
            "m": number % 2 == 0,
            "M": True,
        },
    }


@pytest.fixture
def recording_of(tmp_path: Path) -> Callable[..., Path]:
    """Write a recording of one trade per millisecond with the given ids."""

    def write(ids: Iterable[int], symbol: str = "BTCUSDT", gap_ms: int = 1) -> Path:
        path = tmp_path / f"{symbol}.frames"
        start_ms = 1_700_000_000_000
        lines = [
            f"{(start_ms + place * gap_ms) * 1_000_000} {json.dumps(_trade(symbol, number, start_ms + place))}\n"
            for place, number in enumerate(ids)
        ]
        path.write_text("".join(lines))
        return path

    return write
