"""``marketfeed status`` of services, and of endpoints that are none."""

import json
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from prometheus_client import CollectorRegistry

from marketfeed_cli import services
from marketfeed_cli.process import Parts
from marketfeed_cli.status import decode_status, status
from marketfeed_service.health import HealthServer, ProbeResult
from marketfeed_wire.status import ConsumerStatus, PartitionStatus


class Fixed:
    """A service with a fixed status."""

    def __init__(self, body: bytes) -> None:
        self.body = body

    def livez(self) -> ProbeResult:
        return ProbeResult(True)

    def readyz(self) -> ProbeResult:
        return ProbeResult(True)

    def status(self) -> bytes:
        return self.body


CONSUMER = ConsumerStatus(
    version="0.1.0",
    group="marketfeed",
    ready=False,
    reason="waiting for the database at db:5432",
    partitions=[PartitionStatus(topic="market.trades.raw", partition=2, next_offset=7, end_offset=10)],
    inserted={"trades": 7},
    duplicates={"trades": 1},
    dead_letters=0,
    symbols={},
    latency_p50_us=1_200,
    latency_p99_us=None,
)


@pytest.fixture
def served() -> Iterator[tuple[Fixed, str]]:
    service = Fixed(msgspec.json.encode(CONSUMER))
    with HealthServer(service, CollectorRegistry(), host="127.0.0.1", port=0) as server:
        yield service, f"127.0.0.1:{server.port}"


async def test_status_of_a_consumer_that_is_not_ready_has_the_reason(
    served: tuple[Fixed, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert await status([f"http://{served[1]}/metrics"], "text") == 1
    text = capsys.readouterr().out
    assert "consumer 0.1.0, group marketfeed  not ready: waiting for the database at db:5432" in text
    assert "market.trades.raw[2]" in text
    assert "wire to commit: p50 1.2 ms, p99 -" in text


async def test_status_json_has_every_status_and_error(
    served: tuple[Fixed, str], capsys: pytest.CaptureFixture[str]
) -> None:
    ready = msgspec.structs.replace(CONSUMER, ready=True, reason="")
    served[0].body = msgspec.json.encode(ready)
    assert await status([served[1]], "json") == 0
    assert json.loads(capsys.readouterr().out) == [
        {"url": f"http://{served[1]}", **msgspec.to_builtins(ready)}
    ]
    assert await status([served[1], "127.0.0.1:1"], "json") == 1
    entries = json.loads(capsys.readouterr().out)
    assert entries[1]["url"] == "http://127.0.0.1:1"
    assert entries[1]["error"].startswith("is unreachable")


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"ok\n", "not that of a marketfeed service"),
        (b"[]", "not that of"),
        (b'{"version":1}', "not that of"),
    ],
)
def test_status_rejects_other_responses(body: bytes, reason: str) -> None:
    result = decode_status(body)
    assert isinstance(result, str)
    assert reason in result


@pytest.mark.parametrize("url", ["http://", "not a url", "http://127.0.0.1:99999"])
async def test_status_rejects_invalid_urls(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert await status([url], "text") == 1
    assert capsys.readouterr().out.strip()


async def test_status_of_a_venue_is_an_error(
    parts: Parts, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "port"
    parts.start(services.simulator({"PATH": "/usr/bin"}, file, ["generate"]))

    async def is_written() -> bool:
        return file.exists()

    await parts.until(is_written, seconds=30, what="the simulator's start")
    assert await status([f"127.0.0.1:{file.read_text().strip()}"], "text") == 1
    assert "returned HTTP 404 for /status" in capsys.readouterr().out
