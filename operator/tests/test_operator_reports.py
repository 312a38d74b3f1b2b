"""What pods say of themselves: taken in, kept over an answer that is missed, given up when it stays away."""

import aiohttp
import msgspec
import pytest
from aiohttp import web
from prometheus_client import CollectorRegistry

from marketfeed_operator.engine.metrics import Metrics
from marketfeed_operator.engine.reports import MISSED_RESPONSES, Reports
from marketfeed_operator.observed import FeedFacts, Key, PodFacts
from marketfeed_operator.store import Store
from marketfeed_wire.status import SymbolStatus, WorkerStatus

FEED = ("default", "feed")


def worker_status(assignment: str) -> bytes:
    symbol = SymbolStatus(
        trades=1, quotes=1, last_trade_id=7, last_trade_time_us=60_000_000, missing=2, duplicates=0
    )
    return msgspec.json.encode(
        WorkerStatus(
            version="1", venue="binance_us", shard="feed-shard-0", ready=True, reason="", symbols={"AA": symbol},
            refused_symbols={}, connections=[], received={}, acknowledged={}, failed={}, pending=0,
            assignment=assignment,
        )
    )  # fmt: skip


class Pod:
    """A pod's /status, on a port of its own."""

    def __init__(self) -> None:
        self.answer: bytes | None = worker_status("f1")

    async def handle(self, _: web.Request) -> web.Response:
        return web.Response(status=503) if self.answer is None else web.Response(body=self.answer)


@pytest.fixture
async def served():
    pod, app = Pod(), web.Application()
    app.router.add_get("/status", pod.handle)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield pod, runner.addresses[0][1]
    await runner.cleanup()


async def test_a_report_stands_until_several_answers_in_a_row_are_missed(served):
    pod, port = served
    told: list[Key] = []

    async def changed(key: Key) -> None:
        told.append(key)

    store = Store()
    store.put_feed(FeedFacts(*FEED, "uid", 1, "1", {}, {}))
    store.put_pod(PodFacts("default", "pod", "pod-uid", FEED, "ingestion", 0, ip="127.0.0.1", ready=True))
    reports = Reports(store, Metrics(CollectorRegistry()), port=port, changed=changed)
    async with aiohttp.ClientSession() as session:
        await reports.ask_all(session)
        assert (reports.by_pod["pod-uid"].assignment, reports.by_pod["pod-uid"].missing_trades) == (
            "f1",
            2,
        )
        assert told == [FEED]
        for _ in range(2):  # an answer in between begins the count anew
            pod.answer = None
            for _ in range(MISSED_RESPONSES - 1):
                await reports.ask_all(session)
            assert "pod-uid" in reports.by_pod
            pod.answer = worker_status("f1")
            await reports.ask_all(session)
        assert told == [FEED], "nothing was new"
        pod.answer = worker_status("5ec")
        await reports.ask_all(session)
        assert reports.by_pod["pod-uid"].assignment == "5ec"
        assert told == [FEED] * 2
        pod.answer = None
        for _ in range(MISSED_RESPONSES):
            await reports.ask_all(session)
        assert reports.by_pod == {}
        assert told == [FEED] * 3
        await reports.ask_all(session)
        assert told == [FEED] * 3, "told once"
    store.remove_pod("pod-uid")
