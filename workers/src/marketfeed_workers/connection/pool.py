"""The connections of a worker and the distribution of symbols over them."""

import asyncio
from collections.abc import Sequence

from marketfeed_service import logs
from marketfeed_workers.connection.connection import Connection
from marketfeed_workers.connection.parts import ConnectionParts
from marketfeed_workers.venues.errors import Unreachable

log = logs.get(__name__)


def spread(current: Sequence[Sequence[str]], desired: Sequence[str], size: int) -> list[list[str]]:
    """Distribute `desired` symbols over connections of at most `size` symbols; a symbol keeps its connection.

    The result has at least as many places as `current`, some perhaps empty; new symbols fill free places first.
    """
    known = set(desired)
    places = [[symbol for symbol in symbols if symbol in known] for symbols in current]
    settled = {symbol for symbols in places for symbol in symbols}
    for symbol in desired:
        if symbol in settled:
            continue
        roomy = next((place for place in places if len(place) < size), None)
        if roomy is None:
            roomy = []
            places.append(roomy)
        roomy.append(symbol)
    return places


class ConnectionPool:
    """Opens, changes and closes connections; run `run` as a task."""

    def __init__(self, parts: ConnectionParts, symbols_per_connection: int) -> None:
        self._parts = parts
        self._size = symbols_per_connection
        self._connections: list[Connection] = []
        self._tasks: dict[Connection, asyncio.Task[None]] = {}
        self._group: asyncio.TaskGroup | None = None

    @property
    def connections(self) -> list[Connection]:
        """The connections with symbols, as a new list. For any thread."""
        return [connection for connection in list(self._connections) if connection.symbols]

    async def run(self) -> None:
        """Keep the connections running until cancelled."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            for connection in self._connections:
                self._start(connection)
            await asyncio.Event().wait()

    async def read(self, symbols: Sequence[str]) -> None:
        """Read exactly `symbols`: by commands on open connections, and by new connections if needed."""
        places = spread([connection.symbols for connection in self._connections], symbols, self._size)
        for number, place in enumerate(places):
            if number == len(self._connections):
                self._connections.append(Connection(number, place, self._parts))
                self._start(self._connections[number])
            elif set(place) != set(self._connections[number].symbols):
                await self._change(self._connections[number], place)

    def covers(self, symbols: Sequence[str]) -> bool:
        """Return whether the venue has confirmed every stream of `symbols`."""
        streams = {stream for symbol in symbols for stream in self._parts.venue.streams(symbol)}
        return streams <= {stream for connection in self._connections for stream in connection.cover()}

    def connection_of(self, symbol: str) -> Connection | None:
        """Return the connection of a symbol."""
        return next((each for each in self._connections if symbol in each.symbols), None)

    async def _change(self, connection: Connection, symbols: list[str]) -> None:
        started = bool(connection.symbols)
        try:
            await connection.change_symbols(symbols)
        except Unreachable as error:
            log.warning("subscription change failed", reason=str(error))
        if not symbols:
            task = self._tasks.pop(connection, None)
            if task is not None:
                task.cancel()
        elif not started:
            self._start(connection)

    def _start(self, connection: Connection) -> None:
        if self._group is not None and connection.symbols:
            self._tasks[connection] = self._group.create_task(connection.run(), name="connection")
