"""Any response of a venue or a pod leaves the operator's clients with a value or a condition of that feed."""

import asyncio
import contextlib
import gzip
import json
import tracemalloc
from collections import Counter

import aiohttp
import msgspec
import pytest
from aiohttp import web
from prometheus_client import CollectorRegistry
from test_operator_decide import NOW
from test_operator_reports import worker_status

from marketfeed_devtools.hostile import meet
from marketfeed_devtools.seeds import fuzz_rng, fuzz_rounds
from marketfeed_operator.api import Spec, parse
from marketfeed_operator.decide import Situation, decide
from marketfeed_operator.desired import Defaults, Feed
from marketfeed_operator.engine.exchange_info import read_exchange_info
from marketfeed_operator.engine.listings import RESPONSE_SECONDS, Listings, listed
from marketfeed_operator.engine.metrics import Metrics
from marketfeed_operator.engine.reports import Reports
from marketfeed_operator.observed import FeedFacts, Key, Observed, PodFacts
from marketfeed_operator.plan import plan
from marketfeed_operator.store import Store
from marketfeed_service.http_body import BadBody

CONSUMER = {
    "version": "1", "group": "g", "ready": True, "reason": "",
    "partitions": [{"topic": "t", "partition": 0, "next_offset": 90, "end_offset": 100}],
    "inserted": {}, "duplicates": {}, "dead_letters": 0, "symbols": {}, "latency_p50_us": None, "latency_p99_us": None,
}  # fmt: skip
LISTING = {
    "timezone": "UTC",
    "symbols": [
        {"symbol": "BTCUSDT", "status": "TRADING", "quoteAsset": "USDT", "permissionSets": [["SPOT"]]},
        {"symbol": "ETHUSDT", "status": "BREAK", "quoteAsset": "USDT"},
    ],
}
SHORT = aiohttp.ClientTimeout(total=2)
"""Some responses end a connection so that a client can only time out; production uses a longer timeout."""
FEED = ("default", "feed")


async def ignored(_: Key) -> None:
    return None


async def test_listings_survive_any_response_of_a_venue():
    outcomes: Counter[bool] = Counter()

    async def asks(base: str, rounds: int) -> None:
        listings = Listings(ignored, Metrics(CollectorRegistry()))
        spec = selecting(base)
        async with aiohttp.ClientSession(timeout=SHORT) as session:
            for _ in range(rounds):
                listings.of(FEED, spec)
                succeeded = await listings._refresh(session, base)
                found = listings.of(FEED, spec)
                assert found is not None
                assert succeeded == (not found.problem)
                assert len(found.problem) < 500
                outcomes[succeeded] += 1
                if found.symbols:
                    # An accepted value can be planned with, and contains no control characters.
                    assert all(name.isprintable() and name.strip() == name for name in found.symbols)
                    feed = Feed(*FEED, "uid", 1, spec, Defaults("w", "c"))
                    assert plan(feed, Observed(listing=found)) is not None

    await meet(fuzz_rng("venue"), [LISTING], fuzz_rounds(), asks)
    assert outcomes.keys() == {True, False}


async def test_reports_survive_any_response_of_a_pod_with_a_valid_status():
    samples = [json.loads(worker_status("0123456789abcdef")), CONSUMER]
    outcomes: Counter[str] = Counter()

    async def asks(base: str, rounds: int) -> None:
        store = Store()
        store.put_feed(FeedFacts(*FEED, "uid", 1, "1", {}, {}))
        spec = parse(
            {
                "venue": "binance_us", "symbols": ["AA"], "kafka": {"bootstrapServers": "k:9092"},
                "storage": {"engine": "postgresql", "dsnSecretName": "d"},
            }
        )  # fmt: skip
        assert isinstance(spec, Spec)
        feed = Feed(*FEED, "uid", 1, spec, Defaults("w", "c"))
        for number, component in enumerate(("ingestion", "consumer-trades")):
            store.put_pod(
                PodFacts(
                    "default", f"p{number}", f"u{number}", FEED, component, 0, ip="127.0.0.1", ready=True
                )
            )
        port = int(base.rpartition(":")[2])
        reports = Reports(store, Metrics(CollectorRegistry()), port=port, changed=ignored)
        async with reports.session() as session:
            for _ in range(rounds):
                await reports.poll_all(session)
                outcomes["seen"] += len(reports.by_pod)
                outcomes["rejected"] += len(reports.problems)
                observed = Observed(
                    pods=store.pods_of(FEED),
                    reports=dict(reports.by_pod),
                    report_problems=dict(reports.problems),
                )
                planned = plan(feed, observed)
                at = Situation(store.feeds[FEED], spec, [], observed, planned, applied=True)
                reported = json.dumps(
                    decide(at, NOW).model_dump(by_alias=True, exclude_none=True, mode="json")
                )
                assert "\\u001b" not in reported
                assert len(reported) < 20_000

    await meet(fuzz_rng("pods"), samples, fuzz_rounds(), asks)
    assert outcomes["seen"] > 0
    assert outcomes["rejected"] > 0


async def test_listings_of_unresponsive_addresses_do_not_delay_other_namespaces():
    """Thirty feeds of one namespace, each with an address that accepts the request and does not respond."""
    waiting = asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        waiting.set()
        with contextlib.suppress(ConnectionError):
            await reader.read()
        writer.close()

    async def venue(_: web.Request) -> web.Response:
        return web.json_response(LISTING)

    app = web.Application()
    app.router.add_get("/api/v3/exchangeInfo", venue)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    reported = asyncio.Queue[Key]()
    listings = Listings(reported.put, Metrics(CollectorRegistry()))
    bases = [(("hostile", f"f{number}"), f"http://127.0.0.1:{port}/{number}") for number in range(30)]
    patient = (("patient", "feed"), f"http://127.0.0.1:{runner.addresses[0][1]}")
    for key, base in bases:
        listings.of(key, selecting(base))
    running = asyncio.create_task(listings.run(60, 60))
    await waiting.wait()
    listings.of(patient[0], selecting(patient[1]))
    try:
        assert await asyncio.wait_for(reported.get(), RESPONSE_SECONDS / 2) == patient[0]
    finally:
        running.cancel()
        await asyncio.wait({running})
        server.close()
        await runner.cleanup()


def selecting(base: str) -> Spec:
    kafka = {"bootstrapServers": "k:9092"}
    declared = {"venue": "binance_us", "symbolSelector": {}, "kafka": kafka, "endpoints": {"rest": base}}
    spec = parse(declared)
    assert isinstance(spec, Spec), spec
    return spec


def test_listings_of_only_commas_are_refused_before_decoding():
    body = b'{"symbols":[' + b"[]," * (10 * 2**20) + b"[]]}"
    tracemalloc.start()
    try:
        with pytest.raises(BadBody, match="more than"):
            read_exchange_info(body)
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


def test_listings_of_half_a_million_invalid_entries_are_refused():
    with pytest.raises(BadBody, match="lists more than 20,000 symbols"):
        read_exchange_info(b'{"symbols":[' + b"0," * 500_000 + b"0]}")


def test_listings_skip_only_invalid_entries():
    odd = [7, None, {}, {"symbol": 7}, {"symbol": "a\x1b", "status": "TRADING", "quoteAsset": "USDT"}, [[[]]]]
    body = msgspec.json.encode({"symbols": [*odd, *LISTING["symbols"]]})
    found = read_exchange_info(body)
    assert found.symbols == {"BTCUSDT": ("TRADING", "USDT"), "ETHUSDT": ("BREAK", "USDT")}
    assert found.skipped == len(odd)


async def test_listings_limit_a_gzip_bomb():
    body = gzip.compress(b'{"symbols":[' + b"[]," * (20 * 2**20) + b"[]]}", 9)
    app = web.Application()

    async def bomb(_: web.Request) -> web.Response:
        return web.Response(
            body=body, headers={"Content-Encoding": "gzip", "Content-Type": "application/json"}
        )

    app.router.add_get("/api/v3/exchangeInfo", bomb)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    async with aiohttp.ClientSession() as session:
        with pytest.raises(BadBody, match="more than"):
            await listed(session, f"http://127.0.0.1:{runner.addresses[0][1]}")
    await runner.cleanup()
