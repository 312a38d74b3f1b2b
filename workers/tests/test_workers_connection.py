"""A connection whose symbols change, or whose venue breaks off, at the moments that hurt; against a real server."""

import asyncio
import json
import random
from collections.abc import AsyncIterator
from urllib.parse import parse_qs, urlsplit

import pytest
from websockets.asyncio.server import ServerConnection, serve
from websockets.http11 import Request, Response
from workers_broker import Broker
from workers_support import MakeSettings, now_us

from marketfeed_devtools.waiting import until_async
from marketfeed_workers.budget import AttemptBudget
from marketfeed_workers.connection import ConnectionParts
from marketfeed_workers.counters import Counters, StreamCounters
from marketfeed_workers.errors import Unreachable
from marketfeed_workers.fleet import Fleet
from marketfeed_workers.pipeline import Pipeline
from marketfeed_workers.publisher import Publisher
from marketfeed_workers.transports.picows_socket import open_socket
from marketfeed_workers.venues.registry import VENUES


class Venue:
    """A server that speaks the venue's commands and sends no data by itself.

    Attributes:
        open: the connections there are -> their streams.
        handshakes: set while handshakes are answered.
        answering: commands are answered.
        most_open: connections beyond this many are closed at once, with 1013.
    """

    def __init__(self) -> None:
        self.open: dict[ServerConnection, set[str]] = {}
        self.handshakes = asyncio.Event()
        self.handshakes.set()
        self.asked = 0
        self.answering = True
        self.most_open = 1000
        self.commands: list[str] = []

    async def gate(self, _: ServerConnection, __: Request) -> Response | None:
        self.asked += 1
        await self.handshakes.wait()
        return None

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
                    streams.update(names)
                elif command["method"] == "UNSUBSCRIBE":
                    streams.difference_update(names)
                if self.answering:
                    await connection.send(json.dumps({"result": result, "id": command["id"]}))
        finally:
            del self.open[connection]

    def streams(self) -> list[set[str]]:
        return list(self.open.values())


class Rig:
    """A fleet of one or more connections to a `Venue`."""

    def __init__(self, make_settings: MakeSettings, broker: Broker, venue: Venue, address: str) -> None:
        self.venue = venue
        self.lively: set[str] = set()
        settings = make_settings(
            KAFKA_BROKER=broker.address, BINANCE_WS_BASE=address, WS_WARM_TIMEOUT_SECONDS="5"
        )
        self.counters = Counters(
            *[StreamCounters(name, name) for name in ("trade", "quote", "gap", "progress")]
        )
        facts = VENUES["binance_us"]
        parts = ConnectionParts(
            venue=facts,
            settings=settings,
            open_socket=open_socket,
            pipeline=Pipeline(facts, Publisher(settings, now_us), self.counters, now_us),
            counters=self.counters,
            attempts=AttemptBudget(300, 1, 300, asyncio.get_running_loop().time),
            lively_streams=lambda _: set(self.lively),
            now_us=now_us,
            chance=random.Random(1),  # noqa: S311 - jitter
        )
        self.fleet = Fleet(parts, 10)

    def is_streaming(self) -> bool:
        return bool(self.fleet.connections) and all(
            each.status().state == "streaming" for each in self.fleet.connections
        )


@pytest.fixture
async def rig(make_settings: MakeSettings, shared_broker: Broker) -> AsyncIterator[Rig]:
    venue = Venue()
    async with serve(
        venue.handle, "127.0.0.1", 0, process_request=venue.gate, ping_interval=None, close_timeout=1
    ) as server:
        made = Rig(
            make_settings, shared_broker, venue, f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        )
        running = asyncio.create_task(made.fleet.run())
        await asyncio.sleep(0)
        yield made
        running.cancel()
        await asyncio.wait({running})
        venue.handshakes.set()


def of(*symbols: str) -> set[str]:
    return {f"{symbol.lower()}@{kind}" for symbol in symbols for kind in ("trade", "bookTicker")}


async def test_symbols_that_change_while_a_connection_opens_are_read_by_it(rig: Rig) -> None:
    rig.venue.handshakes.clear()
    await rig.fleet.read(["AAA", "BBB"])
    await until_async(lambda: rig.venue.asked == 1, "a handshake")
    await rig.fleet.read(["BBB", "CCC"])
    rig.venue.handshakes.set()
    await until_async(lambda: rig.fleet.covers(["BBB", "CCC"]), "every stream that is wanted now")
    assert rig.venue.streams() == [of("BBB", "CCC")]


async def test_symbols_that_change_while_a_connection_is_replaced_are_read_by_the_new_one(rig: Rig) -> None:
    await rig.fleet.read(["AAA"])
    await until_async(rig.is_streaming, "a connection")
    rig.venue.handshakes.clear()
    rig.fleet.connections[0].renew("test")
    await until_async(lambda: rig.venue.asked == 2, "a second handshake")
    await rig.fleet.read(["AAA", "BBB"])
    rig.venue.handshakes.set()
    await until_async(lambda: rig.counters.rotations["test"] == 1, "the replacement")
    await until_async(lambda: rig.venue.streams() == [of("AAA", "BBB")], "one connection with all of it")
    assert rig.fleet.covers(["AAA", "BBB"])


async def test_a_connection_that_is_cut_during_a_command_is_an_error_of_the_venue(rig: Rig) -> None:
    await rig.fleet.read(["AAA"])
    await until_async(rig.is_streaming, "a connection")
    rig.venue.answering = False
    connection = rig.fleet.connections[0]
    changing = asyncio.create_task(connection.change_symbols(["AAA", "BBB"]))
    await until_async(lambda: "SUBSCRIBE" in rig.venue.commands, "the command")
    rig.venue.answering = True
    next(iter(rig.venue.open)).transport.abort()
    await asyncio.wait({changing}, timeout=5)
    assert changing.done(), "a connection that has ended answers no command any more"
    assert not changing.cancelled(), "whoever changed the symbols would end, too"
    assert isinstance(changing.exception(), Unreachable | None)
    await until_async(lambda: rig.fleet.covers(["AAA", "BBB"]), "both symbols, by the next connection")


async def test_a_replacement_that_dies_before_it_is_warm_does_not_cost_the_old_connection(rig: Rig) -> None:
    await rig.fleet.read(["AAA"])
    await until_async(rig.is_streaming, "a connection")
    (old,) = rig.venue.open
    rig.lively = of("AAA")
    rig.venue.most_open = 1
    rig.fleet.connections[0].renew("test")
    await until_async(lambda: rig.venue.asked >= 4, "further attempts, soon")
    assert list(rig.venue.open) == [old]
    assert rig.counters.rotations["test"] == 0
    rig.venue.most_open, rig.lively = 2, set()
    await until_async(lambda: rig.counters.rotations["test"] == 1, "a replacement that lives")
    assert rig.fleet.connections[0].status().reconnects == 0


async def test_a_connection_that_had_nothing_to_read_comes_back_at_once(rig: Rig) -> None:
    await rig.fleet.read(["AAA"])
    await until_async(rig.is_streaming, "a connection")
    await rig.fleet.read([])
    await until_async(lambda: not rig.venue.open, "no connection")
    await asyncio.wait_for(rig.fleet.read(["BBB"]), 5)
    await until_async(lambda: rig.venue.streams() == [of("BBB")], "the new symbol")
    await until_async(lambda: rig.fleet.covers(["BBB"]), "the new symbol")
    assert rig.counters.rotations["command_failed"] == 0
