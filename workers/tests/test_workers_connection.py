"""Symbol changes and disconnects at critical moments of a connection, against a real server."""

import asyncio
import json
import random
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from http import HTTPStatus
from urllib.parse import parse_qs, urlsplit

import pytest
from structlog.testing import capture_logs
from websockets.asyncio.server import ServerConnection, serve
from websockets.http11 import Request, Response
from workers_support import MakeSettings, now_us

from marketfeed_devtools.mock_broker import Broker
from marketfeed_devtools.waiting import until_async
from marketfeed_service import backoff
from marketfeed_workers.connection import connection as connections
from marketfeed_workers.connection import warm_up
from marketfeed_workers.connection.parts import ConnectionParts
from marketfeed_workers.connection.pool import ConnectionPool
from marketfeed_workers.connection.transports.picows_socket import open_socket
from marketfeed_workers.counters import Counters, StreamCounters
from marketfeed_workers.kafka.publisher import Publisher
from marketfeed_workers.rate_limit import AttemptBudget
from marketfeed_workers.stream import id_resets
from marketfeed_workers.stream.pipeline import Pipeline
from marketfeed_workers.venues.errors import Unreachable
from marketfeed_workers.venues.registry import VENUES


class Streams:
    """State of streams set by the test. Implements `StreamStates`.

    Attributes:
        lively: streams that a new session is given time to deliver.
        ahead: streams of which REST shows something newer.
        stalled: streams that do not deliver what the venue has.
        received: stream -> messages over any session.
    """

    def __init__(self) -> None:
        self.lively: set[str] = set()
        self.ahead: set[str] = set()
        self.stalled: set[str] = set()
        self.received: Counter[str] = Counter()

    def broken(self, names: list[str]) -> set[str]:
        return self.stalled & set(names)

    def first_message_timeout(self, name: str) -> float:
        return 60.0 if name in self.lively else 0.0

    def seen(self, name: str) -> int:
        return self.received[name]

    async def undelivered(self, names: list[str]) -> set[str]:
        return self.ahead & set(names)


class Venue:
    """A server with the venue's commands that sends data only on request.

    Attributes:
        open: the connections there are -> their streams.
        handshakes: set while handshakes are answered.
        answering: commands are answered.
        most_open: connections beyond this many are closed at once, with 1013.
        refusal: an HTTP status that handshakes are answered with; None accepts them.
        forgets: streams that are acknowledged and not subscribed.
    """

    def __init__(self) -> None:
        self.open: dict[ServerConnection, set[str]] = {}
        self.handshakes = asyncio.Event()
        self.handshakes.set()
        self.asked = 0
        self.answering = True
        self.most_open = 1000
        self.refusal: HTTPStatus | None = None
        self.forgets: set[str] = set()
        self.commands: list[str] = []

    async def gate(self, connection: ServerConnection, _: Request) -> Response | None:
        self.asked += 1
        await self.handshakes.wait()
        return None if self.refusal is None else connection.respond(self.refusal, "refused")

    async def deliver(self, stream: str) -> None:
        """Send a message of a stream to every subscribed connection."""
        symbol = stream.split("@")[0].upper()
        data = {"u": 1, "s": symbol, "b": "1", "B": "1", "a": "1", "A": "1"}
        if stream.endswith("@trade"):
            data = {
                "E": 1_723_161_600_000,
                "s": symbol,
                "t": 1,
                "p": "1",
                "q": "1",
                "T": 1_723_161_600_000,
                "m": True,
            }
        for connection, streams in self.open.items():
            if stream in streams:
                await connection.send(json.dumps({"stream": stream, "data": data}))

    async def handle(self, connection: ServerConnection) -> None:
        if len(self.open) >= self.most_open:
            await connection.close(1013, "try again later")
            return
        assert connection.request is not None
        query = parse_qs(urlsplit(connection.request.path).query)
        streams = self.open[connection] = set(query.get("streams", [""])[0].split("/")) - {""}
        try:
            async for text in connection:
                command = json.loads(text)
                self.commands.append(command["method"])
                names = command.get("params", [])
                result = sorted(streams) if command["method"] == "LIST_SUBSCRIPTIONS" else None
                if command["method"] == "SUBSCRIBE":
                    streams.update(set(names) - self.forgets)
                elif command["method"] == "UNSUBSCRIBE":
                    streams.difference_update(names)
                if self.answering:
                    await connection.send(json.dumps({"result": result, "id": command["id"]}))
        finally:
            del self.open[connection]

    def streams(self) -> list[set[str]]:
        return list(self.open.values())


class Rig:
    """A pool of connections to a `Venue`."""

    def __init__(self, make_settings: MakeSettings, broker: Broker, venue: Venue, address: str) -> None:
        self.venue = venue
        self.streams = Streams()
        settings = make_settings(
            KAFKA_BROKER=broker.address, BINANCE_WS_BASE=address, WS_WARM_TIMEOUT_SECONDS="5"
        )
        self.counters = Counters(
            *[StreamCounters(name, name) for name in ("trade", "quote", "gap", "progress")]
        )
        facts = VENUES["binance_us"]
        self.pipeline = Pipeline(facts, Publisher(settings, now_us), self.counters, now_us)
        parts = ConnectionParts(
            venue=facts,
            settings=settings,
            open_socket=open_socket,
            pipeline=self.pipeline,
            counters=self.counters,
            attempts=AttemptBudget(300, 1, 300, asyncio.get_running_loop().time),
            streams=self.streams,
            now_us=now_us,
            monotonic=asyncio.get_running_loop().time,
            rng=random.Random(1),  # noqa: S311 - jitter
        )
        self.pool = ConnectionPool(parts, 10)

    def is_streaming(self) -> bool:
        return bool(self.pool.connections) and all(
            each.status().state == "streaming" for each in self.pool.connections
        )


@pytest.fixture
async def rig(
    make_settings: MakeSettings, shared_broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Rig]:
    monkeypatch.setattr(warm_up, "SETTLE_SECONDS", 0.3)
    venue = Venue()
    async with serve(
        venue.handle, "127.0.0.1", 0, process_request=venue.gate, ping_interval=None, close_timeout=1
    ) as server:
        made = Rig(
            make_settings, shared_broker, venue, f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        )
        running = asyncio.create_task(made.pool.run())
        await asyncio.sleep(0)
        yield made
        running.cancel()
        await asyncio.wait({running})
        venue.handshakes.set()


def of(*symbols: str) -> set[str]:
    return {f"{symbol.lower()}@{kind}" for symbol in symbols for kind in ("trade", "bookTicker")}


async def test_symbol_change_while_a_connection_opens(rig: Rig) -> None:
    rig.venue.handshakes.clear()
    await rig.pool.read(["AAA", "BBB"])
    await until_async(lambda: rig.venue.asked == 1, "a handshake")
    await rig.pool.read(["BBB", "CCC"])
    rig.venue.handshakes.set()
    await until_async(lambda: rig.pool.covers(["BBB", "CCC"]), "every desired stream")
    assert rig.venue.streams() == [of("BBB", "CCC")]


async def test_symbol_change_during_a_rotation(rig: Rig) -> None:
    await rig.pool.read(["AAA"])
    await until_async(rig.is_streaming, "a connection")
    rig.venue.handshakes.clear()
    rig.pool.connections[0].rotate("test")
    await until_async(lambda: rig.venue.asked == 2, "a second handshake")
    await rig.pool.read(["AAA", "BBB"])
    rig.venue.handshakes.set()
    await until_async(lambda: rig.counters.rotations["test"] == 1, "the replacement")
    await until_async(lambda: rig.venue.streams() == [of("AAA", "BBB")], "one connection with all of it")
    assert rig.pool.covers(["AAA", "BBB"])


async def test_connection_cut_during_a_command_raises_unreachable(rig: Rig) -> None:
    await rig.pool.read(["AAA"])
    await until_async(rig.is_streaming, "a connection")
    rig.venue.answering = False
    changing = asyncio.create_task(rig.pool.connections[0].change_symbols(["AAA", "BBB"]))
    await until_async(lambda: "SUBSCRIBE" in rig.venue.commands, "the command")
    rig.venue.answering = True
    next(iter(rig.venue.open)).transport.abort()
    await asyncio.wait({changing}, timeout=5)
    assert changing.done(), "a closed connection left a command pending"
    assert not changing.cancelled(), "the change was cancelled with the connection"
    assert isinstance(changing.exception(), Unreachable | None)
    await until_async(lambda: rig.pool.covers(["AAA", "BBB"]), "both symbols, by the next connection")


async def test_rotation_keeps_the_old_connection_if_the_new_one_ends_during_warm_up(rig: Rig) -> None:
    await rig.pool.read(["AAA"])
    await until_async(rig.is_streaming, "a connection")
    (old,) = rig.venue.open
    rig.streams.lively = of("AAA")
    rig.venue.most_open = 1
    rig.pool.connections[0].rotate("test")
    await until_async(lambda: rig.venue.asked >= 4, "further attempts, soon")
    assert list(rig.venue.open) == [old]
    assert rig.counters.rotations["test"] == 0
    rig.venue.most_open, rig.streams.lively = 2, set()
    await until_async(lambda: rig.counters.rotations["test"] == 1, "a replacement that lives")
    assert rig.pool.connections[0].status().reconnects == 0


@pytest.mark.parametrize(
    ("outage_seconds", "newest", "may_have"),
    [(0.0, 10**9, True), (60.0, 10**9, False), (60.0, 0, True)],
    ids=["long outage", "short outage", "short outage of a symbol with low ids"],
)
async def test_outage_in_which_ids_may_have_passed_the_newest_known_is_marked(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, outage_seconds: float, newest: int, may_have: bool
) -> None:
    """New ids of a symbol with low ids counted as a gap after an outage of less than a minute."""
    monkeypatch.setattr(id_resets, "OUTAGE_SECONDS", outage_seconds)
    flow, new = rig.pipeline.add_symbol("AAA"), rig.pipeline.add_symbol("BBB")
    flow.sequence.resume_after(newest, [])
    flow.last_trade_time_us = 1
    await rig.pool.read(["AAA", "BBB"])
    await until_async(rig.is_streaming, "a connection")
    assert not flow.is_gap_unverified
    next(iter(rig.venue.open)).transport.abort()
    await until_async(lambda: rig.venue.asked == 2 and rig.is_streaming(), "the next connection")
    assert (flow.is_gap_unverified, new.is_gap_unverified) == (may_have, False)


async def test_connection_without_symbols_reconnects_at_once(rig: Rig) -> None:
    await rig.pool.read(["AAA"])
    await until_async(rig.is_streaming, "a connection")
    await rig.pool.read([])
    await until_async(lambda: not rig.venue.open, "no connection")
    await asyncio.wait_for(rig.pool.read(["BBB"]), 5)
    await until_async(lambda: rig.venue.streams() == [of("BBB")], "the new symbol")
    await until_async(lambda: rig.pool.covers(["BBB"]), "the new symbol")
    assert rig.counters.rotations["command_failed"] == 0


async def test_rotation_keeps_the_connection_that_delivers_a_stream_the_new_one_does_not(rig: Rig) -> None:
    await rig.pool.read(["AAA"])
    await until_async(rig.is_streaming, "a connection")
    (old,) = rig.venue.open
    rig.streams.lively = {"aaa@trade"}
    rig.pool.connections[0].rotate("test")
    await until_async(lambda: len(rig.venue.open) == 2, "a second connection")
    await rig.venue.deliver("aaa@bookTicker")
    rig.streams.ahead = {"aaa@trade"}  # REST has a trade that neither of them has delivered
    rig.streams.lively = set()
    await until_async(lambda: rig.counters.failures["stream_stalled"] >= 1, "the refusal of the new one")
    assert old in rig.venue.open
    assert rig.counters.rotations["test"] == 0
    rig.streams.ahead = set()
    await until_async(lambda: rig.counters.rotations["test"] == 1, "a replacement that lacks nothing")


async def test_rotation_keeps_the_connection_with_messages_the_new_one_does_not_deliver(rig: Rig) -> None:
    await rig.pool.read(["AAA"])
    await until_async(rig.is_streaming, "a connection")
    rig.streams.lively = of("AAA")
    rig.pool.connections[0].rotate("test")
    await until_async(lambda: len(rig.venue.open) == 2, "a second connection")
    await asyncio.sleep(2 * warm_up.SETTLE_SECONDS)  # later messages were not in flight
    rig.streams.received["aaa@trade"] += 1  # over the old one only
    rig.streams.lively = set()
    await until_async(lambda: rig.counters.failures["stream_stalled"] >= 1, "the refusal of the new one")
    assert rig.counters.rotations["test"] == 0


@pytest.mark.parametrize("reason", ["rotation", "test"])
async def test_rotation_keeps_the_connection_while_reads_are_paused(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, reason: str
) -> None:
    """Closed then, it would lose what its buffers hold: seed 31460 lost 50 seconds of trades."""
    monkeypatch.setattr(connections, "PAUSED_CHECK_SECONDS", 0.05)
    await rig.pool.read(["AAA"])
    await until_async(rig.is_streaming, "a connection")
    (old,) = rig.venue.open
    paused = [True]
    monkeypatch.setattr(Pipeline, "paused", property(lambda _: paused[0]))
    rig.pool.connections[0].rotate(reason)
    await asyncio.sleep(0)
    if reason == "rotation":
        await until_async(lambda: not rig.pool.connections[0]._rotation_requested.is_set(), "the request")
        assert list(rig.venue.open) == [old], "nothing is opened before reads resume"
    else:
        await until_async(lambda: len(rig.venue.open) == 2, "a second connection")
    await asyncio.sleep(2 * warm_up.SETTLE_SECONDS)  # for as long as a rotation takes otherwise
    assert (rig.counters.rotations[reason], old in rig.venue.open) == (0, True)
    paused[0] = False
    await until_async(lambda: rig.counters.rotations[reason] == 1, "the rotation")
    assert old not in rig.venue.open


async def test_rotation_is_not_blocked_by_an_illiquid_symbol(rig: Rig) -> None:
    await rig.pool.read(["AAA", "BBB"])
    await until_async(rig.is_streaming, "a connection")
    rig.streams.lively = of("AAA")
    rig.pool.connections[0].rotate("test")
    await until_async(lambda: len(rig.venue.open) == 2, "a second connection")
    for stream in of("AAA"):
        await rig.venue.deliver(stream)
    await until_async(lambda: rig.counters.rotations["test"] == 1, "the replacement")
    session = rig.pool.connections[0].session
    assert session is not None
    assert session.verified == of("AAA", "BBB")


async def test_rotation_for_a_stalled_stream_needs_a_connection_that_delivers_it(rig: Rig) -> None:
    await rig.pool.read(["AAA"])
    await until_async(rig.is_streaming, "a connection")
    rig.streams.stalled = {"aaa@trade"}
    rig.pool.connections[0].rotate("stalled_stream")
    await until_async(lambda: rig.counters.failures["stream_stalled"] >= 1, "the refusal of the new one")
    assert rig.counters.rotations["stalled_stream"] == 0
    rig.streams.lively = {"aaa@trade"}
    async with asyncio.timeout(60):
        while not rig.counters.rotations["stalled_stream"]:
            await rig.venue.deliver("aaa@trade")
            await asyncio.sleep(0.05)


async def test_rotation_for_a_stalled_stream_ends_when_the_stream_delivers_again(rig: Rig) -> None:
    await rig.pool.read(["AAA"])
    await until_async(rig.is_streaming, "a connection")
    (old,) = rig.venue.open
    rig.streams.stalled = {"aaa@trade"}
    rig.pool.connections[0].rotate("stalled_stream")
    await until_async(lambda: rig.counters.failures["stream_stalled"] >= 1, "the refusal of the new one")
    rig.streams.stalled = set()
    await until_async(lambda: list(rig.venue.open) == [old], "the old connection alone")
    assert rig.counters.rotations["stalled_stream"] == 0


@pytest.mark.parametrize("status", [HTTPStatus.FORBIDDEN, HTTPStatus.UNAVAILABLE_FOR_LEGAL_REASONS])
async def test_connection_that_was_refused_is_retried_until_it_is_accepted(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, status: HTTPStatus
) -> None:
    monkeypatch.setattr(connections, "REFUSED_SECONDS", 0.1)
    rig.venue.refusal = status
    await rig.pool.read(["AAA"])
    await until_async(lambda: rig.venue.asked >= 3, "several attempts")
    published = rig.pool.connections[0].status()
    assert published.state == "refused"
    assert str(status.value) in published.reason
    rig.venue.refusal = None
    await until_async(lambda: rig.pool.covers(["AAA"]), "the connection")


async def test_connection_refused_during_a_rotation_is_retried_while_the_old_one_is_open(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "REFUSED_SECONDS", 0.1)
    await rig.pool.read(["AAA"])
    await until_async(rig.is_streaming, "a connection")
    rig.venue.refusal = HTTPStatus.FORBIDDEN
    rig.pool.connections[0].rotate("test")
    await until_async(lambda: rig.counters.failures["forbidden"] >= 2, "several attempts")
    rig.venue.refusal = None
    await until_async(lambda: rig.counters.rotations["test"] == 1, "the replacement")


async def test_reconnect_backoff_is_reset_only_after_data(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """One series of delays while the venue accepts and closes at once, a new one after data."""
    series: list[int] = []

    def delays(*_: object) -> Iterator[float]:
        series.append(0)
        mine = len(series) - 1
        while True:
            series[mine] += 1
            yield 0.01

    monkeypatch.setattr(backoff, "delays", delays)
    rig.venue.most_open = 0
    await rig.pool.read(["AAA"])
    await until_async(lambda: rig.venue.asked >= 6, "several attempts")
    assert [drawn for drawn in series if drawn > 1], "every attempt reset the backoff"
    assert max(series) >= 4
    rig.venue.most_open = 1000
    await until_async(rig.is_streaming, "a connection")
    before = max(series)
    await rig.venue.deliver("aaa@trade")
    await until_async(lambda: rig.counters.trades.received > 0 or rig.counters.unexpected > 0, "data")
    rig.venue.most_open = 0
    next(iter(rig.venue.open)).transport.abort()
    asked = rig.venue.asked
    await until_async(lambda: rig.venue.asked >= asked + 2, "the next attempts")
    assert series.index(before) < len(series) - 1
    assert series[series.index(before)] == before, "the backoff was not reset by data"


async def test_subscription_acknowledged_but_not_listed_is_lost(rig: Rig) -> None:
    await rig.pool.read(["AAA"])
    await until_async(rig.is_streaming, "a connection")
    rig.venue.forgets = {"bbb@trade"}
    with pytest.raises(Unreachable, match="does not list bbb@trade"):
        await rig.pool.connections[0].change_symbols(["AAA", "BBB"])
    await until_async(lambda: rig.pool.covers(["BBB"]), "the streams, by a new connection")


async def test_connection_failure_is_logged_once_with_its_end(rig: Rig) -> None:
    """Each attempt of each connection was logged during an outage of the venue."""
    rig.venue.refusal = HTTPStatus.BAD_GATEWAY
    with capture_logs() as lines:
        await rig.pool.read(["AAA"])
        await until_async(lambda: rig.venue.asked >= 4, "several attempts")
        assert [line["event"] for line in lines].count("connection closed") == 1
        rig.venue.refusal = None
        await until_async(lambda: rig.pool.covers(["AAA"]), "the connection")
    (opened,) = [line for line in lines if line["event"] == "connection opened"]
    assert opened["occurrences"] >= 4
    assert opened["streams"] == 2


async def test_rotation_failure_is_logged_once_with_its_end(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "REFUSED_SECONDS", 0.05)
    await rig.pool.read(["AAA"])
    await until_async(rig.is_streaming, "a connection")
    rig.venue.refusal = HTTPStatus.FORBIDDEN
    with capture_logs() as lines:
        rig.pool.connections[0].rotate("test")
        await until_async(lambda: rig.counters.failures["forbidden"] >= 4, "several attempts")
        rig.venue.refusal = None
        await until_async(lambda: rig.counters.rotations["test"] == 1, "the replacement")
        await until_async(lambda: lines[-1]["event"].startswith("rotation attempts"), "the last line")
    assert [line["event"] for line in lines].count("rotation failed") == 1
    assert lines[-1]["occurrences"] >= 4
