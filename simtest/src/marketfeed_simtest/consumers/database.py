"""A session's database: the store, or PostgreSQL behind a proxy (`postgres.py`)."""

from collections.abc import Callable
from typing import Any, Protocol

from marketfeed_consumers.database.dialects import Dialect
from marketfeed_simtest.consumers.faults import Statement, Strikes
from marketfeed_simtest.consumers.store import Changes, Store


class Database(Protocol):
    """The database of a session: `store.Store`, or PostgreSQL."""

    @property
    def is_up(self) -> bool:
        """Return whether it accepts connections."""

    def connect(self) -> tuple[Any, Dialect]:
        """See `database.connect`."""

    def cut(self, connection: Any) -> None:
        """See `database.cut`."""

    def strike(self, fault: Statement) -> None:
        """Inject failures of statements."""

    def calm(self) -> None:
        """Remove all injected failures."""

    def shut(self) -> None:
        """Reject connections."""

    def open_again(self) -> None:
        """Accept connections."""

    def look(self) -> None:
        """Report committed changes to the oracle, where they were not reported at once."""


MakeDatabase = Callable[[Callable[[Changes], None]], Database]
"""Creates a session's database, which reports committed changes."""


class StoreDatabase(Database):
    """The store as a session's database."""

    def __init__(self, report: Callable[[Changes], None]) -> None:
        self.strikes = Strikes()
        self.store = Store(self.strikes)
        self.store.on_commit.append(report)

    @property
    def is_up(self) -> bool:
        """Return whether it accepts connections."""
        return self.store.is_up

    def connect(self) -> tuple[Any, Dialect]:
        """See `database.connect`."""
        return self.store.connect()

    def cut(self, connection: Any) -> None:
        """See `database.cut`."""
        connection.break_off()

    def strike(self, fault: Statement) -> None:
        """Inject failures of statements."""
        self.strikes.add(fault)

    def calm(self) -> None:
        """Remove all injected failures."""
        self.strikes.clear()

    def shut(self) -> None:
        """Reject connections."""
        self.store.shut()

    def open_again(self) -> None:
        """Accept connections."""
        self.store.is_up = True

    def look(self) -> None:
        """Do nothing: changes are reported at once."""
