"""Reports of pods: stored, kept over a missed response, dropped after several."""

import asyncio
import socket
import time

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
    """A pod's /status, on its own port."""

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


async def test_reports_are_kept_until_several_consecutive_responses_are_missed(served):
    pod, port = served
    reported: list[Key] = []

    async def changed(key: Key) -> None:
        reported.append(key)

    store = Store()
    store.put_feed(FeedFacts(*FEED, "uid", 1, "1", {}, {}))
    store.put_pod(PodFacts("default", "pod", "pod-uid", FEED, "ingestion", 0, ip="127.0.0.1", ready=True))
    reports = Reports(store, Metrics(CollectorRegistry()), port=port, changed=changed)
    async with aiohttp.ClientSession() as session:
        await reports.poll_all(session)
        assert (reports.by_pod["pod-uid"].assignment, reports.by_pod["pod-uid"].missing_trades) == (
            "f1",
            2,
        )
        assert reported == [FEED]
        for _ in range(2):  # a response in between restarts the count
            pod.answer = None
            for _ in range(MISSED_RESPONSES - 1):
                await reports.poll_all(session)
            assert "pod-uid" in reports.by_pod
            pod.answer = worker_status("f1")
            await reports.poll_all(session)
        assert reported == [FEED], "no change"
        pod.answer = worker_status("5ec")
        await reports.poll_all(session)
        assert reports.by_pod["pod-uid"].assignment == "5ec"
        assert reported == [FEED] * 2
        pod.answer = None
        for _ in range(MISSED_RESPONSES):
            await reports.poll_all(session)
        assert reports.by_pod == {}
        assert reported == [FEED] * 3
        await reports.poll_all(session)
        assert reported == [FEED] * 3, "reported once"
    store.remove_pod("pod-uid")


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="this machine has no IPv6")
async def test_reports_of_a_pod_with_an_ipv6_address_are_read():
    pod, app = Pod(), web.Application()
    app.router.add_get("/status", pod.handle)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "::1", 0).start()

    async def changed(_: Key) -> None:
        return None

    store = Store()
    store.put_feed(FeedFacts(*FEED, "uid", 1, "1", {}, {}))
    store.put_pod(PodFacts("default", "pod", "pod-uid", FEED, "ingestion", 0, ip="::1", ready=True))
    port = runner.addresses[0][1]
    reports = Reports(store, Metrics(CollectorRegistry()), port=port, changed=changed)
    async with reports.session() as session:
        await reports.poll_all(session)
    await runner.cleanup()
    assert reports.by_pod["pod-uid"].assignment == "f1"


async def test_reports_of_unresponsive_pods_do_not_delay_other_feeds(served, monkeypatch):
    """Forty pods that accept connections and never respond: five times eight timeouts, one after the other."""
    monkeypatch.setattr("marketfeed_operator.engine.reports.TURN_SECONDS", 0.5)
    pod, port = served
    asked: list[str] = []
    gone = asyncio.Event()

    async def silent(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append("silent")
        await gone.wait()
        writer.close()

    server = await asyncio.start_server(silent, "127.0.0.2", port)

    async def changed(_: Key) -> None:
        return None

    store, other = Store(), ("default", "other")
    for key in (FEED, other):
        store.put_feed(FeedFacts(*key, "uid", 1, "1", {}, {}))
    for number in range(40):
        uid = f"silent-{number}"
        store.put_pod(PodFacts("default", uid, uid, other, "ingestion", 0, ip="127.0.0.2", ready=True))
    store.put_pod(PodFacts("default", "pod", "pod-uid", FEED, "ingestion", 0, ip="127.0.0.1", ready=True))
    reports = Reports(store, Metrics(CollectorRegistry()), port=port, changed=changed)
    timeout = aiohttp.ClientTimeout(total=0.4)
    async with aiohttp.ClientSession(
        timeout=timeout, connector=aiohttp.TCPConnector(force_close=True)
    ) as session:
        for run_once in range(3):
            pod.answer = worker_status(f"{run_once}")
            started = time.monotonic()
            await reports.poll_all(session)
            assert reports.by_pod["pod-uid"].assignment == f"{run_once}"
            assert time.monotonic() - started < 1.5, "one after the other takes 2 s"
        # Unresponsive pods are polled less and less often.
        while min(reports._missed.get(f"silent-{number}", 0) for number in range(40)) < MISSED_RESPONSES + 2:
            await reports.poll_all(session)
        turns, before = 20, len(asked)
        for _ in range(turns):
            await reports.poll_all(session)
            if reports._polling:
                await asyncio.wait(reports._polling.values())
        assert len(asked) - before <= 40 * turns / 4
        await reports.end()
    gone.set()
    server.close()
    await server.wait_closed()
