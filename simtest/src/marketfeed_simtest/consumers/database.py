"""A session's database: the store, or PostgreSQL behind a proxy (`postgres.py`)."""

from collections.abc import Callable
from typing import Any, Protocol

from marketfeed_consumers.dialects import Dialect
from marketfeed_simtest.consumers.faults import Statement, Strikes
from marketfeed_simtest.consumers.store import Changes, Store


class Database(Protocol):
    """The database of a session: `store.Store`, or PostgreSQL."""

    @property
    def is_up(self) -> bool:
        """Whether it takes connections."""

    def connect(self) -> tuple[Any, Dialect]:
        """See `database.connect`."""

    def cut(self, connection: Any) -> None:
        """See `database.cut`."""

    def strike(self, fault: Statement) -> None:
        """Let statements fail."""

    def calm(self) -> None:
        """No statement fails any more."""

    def shut(self) -> None:
        """Take no connections."""

    def open_again(self) -> None:
        """Take connections."""

    def look(self) -> None:
        """Tell the oracle what was committed, where it was not told at once."""


MakeDatabase = Callable[[Callable[[Changes], None]], Database]
"""Makes a session's database; it tells what was committed."""


class StoreDatabase(Database):
    """The store as a session's database."""

    def __init__(self, tell: Callable[[Changes], None]) -> None:
        self.strikes = Strikes()
        self.store = Store(self.strikes)
        self.store.on_commit.append(tell)

    @property
    def is_up(self) -> bool:
        """Whether it takes connections."""
        return self.store.is_up

    def connect(self) -> tuple[Any, Dialect]:
        """See `database.connect`."""
        return self.store.connect()

    def cut(self, connection: Any) -> None:
        """See `database.cut`."""
        connection.break_off()

    def strike(self, fault: Statement) -> None:
        """Let statements fail."""
        self.strikes.add(fault)

    def calm(self) -> None:
        """No statement fails any more."""
        self.strikes.clear()

    def shut(self) -> None:
        """Take no connections."""
        self.store.shut()

    def open_again(self) -> None:
        """Take connections."""
        self.store.is_up = True

    def look(self) -> None:
        """The oracle knows already."""
