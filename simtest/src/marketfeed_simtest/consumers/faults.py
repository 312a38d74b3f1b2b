"""Faults of a session of consumers: of its processes, Kafka's logs, records and the database."""

from collections import deque
from typing import Final, Literal, NamedTuple, TypeAlias

import msgspec

TOPICS: Final = ("trades", "book_tickers", "trade_gaps", "dead_letters")
"""Tables with a topic; plans name topics by them."""


class _Fault(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="fault", tag=str.lower
):
    """Attributes: after_seconds: of the session's clock."""

    after_seconds: float = 0.0


class Crash(_Fault, frozen=True, kw_only=True):
    """A process is killed, and starts again."""

    process: int = 0
    pause_seconds: float = 1


class Restart(_Fault, frozen=True, kw_only=True):
    """A process receives SIGTERM, and starts again."""

    process: int = 0
    pause_seconds: float = 1


class Freeze(_Fault, frozen=True, kw_only=True):
    """A process is frozen; beyond the group's session timeout its partitions are reassigned."""

    process: int = 0
    seconds: float = 3


class Isolate(_Fault, frozen=True, kw_only=True):
    """A process is cut off from Kafka, but not from the database."""

    process: int = 0
    seconds: float = 10


class Scale(_Fault, frozen=True, kw_only=True):
    """The number of processes changes: partitions move."""

    processes: int = 2


class LoseCommits(_Fault, frozen=True, kw_only=True):
    """Offset commits of a process to Kafka are lost."""

    process: int = 0
    seconds: float = 5


class Outage(_Fault, frozen=True, kw_only=True):
    """No broker responds."""

    seconds: float = 5


class Elect(_Fault, frozen=True, kw_only=True):
    """Each partition of a topic gets another leader."""

    topic: str = "trades"


class Cut(_Fault, frozen=True, kw_only=True):
    """Each partition's new leader lacks its last records."""

    topic: str = "trades"
    records: int = 5


class Recreate(_Fault, frozen=True, kw_only=True):
    """A topic is deleted and, after a pause, created again."""

    topic: str = "trades"
    seconds: float = 0


class Expire(_Fault, frozen=True, kw_only=True):
    """Kafka's retention leaves only the last records of each partition."""

    topic: str = "trades"
    kept: int = 5


class Repeat(_Fault, frozen=True, kw_only=True):
    """The last messages of a symbol are published again; `differing`: with another content."""

    symbol: int = 0
    count: int = 5
    differing: bool = False
    quotes: bool = False


class Gap(_Fault, frozen=True, kw_only=True):
    """Trades of a symbol are not published, published later, or proven absent."""

    symbol: int = 0
    count: int = 3
    fill_seconds: float | None = None
    absent: bool = False


class Series(_Fault, frozen=True, kw_only=True):
    """The ids of a symbol restart: its trades and quotes are of the next id series."""

    symbol: int = 0
    first_id: int = 1


class Old(_Fault, frozen=True, kw_only=True):
    """A backfill publishes trades from before the symbol's first."""

    symbol: int = 0
    count: int = 20


Poisonous: TypeAlias = Literal["trade", "named", "quote", "gap", "refused", "reported"]


class Poison(_Fault, frozen=True, kw_only=True):
    """Poison messages: `what` of a trade, a quote, a gap; refused: by the database; reported: by a worker."""

    symbol: int = 0
    what: Poisonous = "trade"
    count: int = 1


class Transaction(_Fault, frozen=True, kw_only=True):
    """Records of a transactional producer, with the control record after them."""

    symbol: int = 0
    count: int = 5
    commits: bool = True


class Burst(_Fault, frozen=True, kw_only=True):
    """Many trades at once."""

    symbol: int = 0
    count: int = 150


class Statement(_Fault, frozen=True, kw_only=True):
    """The next statements with this beginning fail; see `Strike`."""

    statement: str = "COMMIT"
    how: Literal["refused", "done_but_error", "cut_before", "cut_after"] = "refused"
    sqlstate: str = "40001"
    count: int = 1


class DatabaseDown(_Fault, frozen=True, kw_only=True):
    """The database rejects connections, and has closed existing ones."""

    seconds: float = 3


class DatabaseSlow(_Fault, frozen=True, kw_only=True):
    """Each step of a transaction is delayed."""

    step_seconds: float = 0.3
    seconds: float = 5


class Retain(_Fault, frozen=True, kw_only=True):
    """`retain` runs."""

    table: str = "trades"
    kept_hours: int = 48


class Rebuild(_Fault, frozen=True, kw_only=True):
    """`rebuild` runs."""

    table: Literal["candles_1m", "top_of_book"] = "candles_1m"


class Audit(_Fault, frozen=True, kw_only=True):
    """`audit` runs, and its result is checked."""

    deep: bool = True


class Reset(_Fault, frozen=True, kw_only=True):
    """`reset-offsets --to earliest` runs without a refusal."""

    topic: str = "trades"


EachFault: TypeAlias = (
    Crash
    | Restart
    | Freeze
    | Isolate
    | Scale
    | LoseCommits
    | Outage
    | Elect
    | Cut
    | Recreate
    | Expire
    | Repeat
    | Gap
    | Series
    | Old
    | Poison
    | Transaction
    | Burst
    | Statement
    | DatabaseDown
    | DatabaseSlow
    | Retain
    | Rebuild
    | Audit
    | Reset
)
KINDS: Final = tuple(sorted(one.__name__.lower() for one in _Fault.__subclasses__()))


def begins(fault: _Fault) -> float:
    """Return the time at which a fault begins."""
    return fault.after_seconds


def kind_of(fault: _Fault) -> str:
    """Return a fault's name in a plan."""
    return type(fault).__name__.lower()


class Strike(NamedTuple):
    """Effect of a fault on a statement.

    Attributes:
        cuts: whether the connection breaks; otherwise the result is the error `sqlstate`.
        is_done: whether the server has executed it nevertheless.
    """

    cuts: bool
    is_done: bool
    sqlstate: str


class Strikes:
    """Faults waiting for their statement.

    Attributes:
        struck: number of faults injected.
    """

    def __init__(self) -> None:
        self.struck = 0
        self._waiting: deque[tuple[str, Strike]] = deque()

    def add(self, fault: Statement) -> None:
        """Add a fault that waits for its statements."""
        cuts = fault.how in ("cut_before", "cut_after")
        is_done = fault.how in ("done_but_error", "cut_after")
        self._waiting.extend([(fault.statement, Strike(cuts, is_done, fault.sqlstate))] * fault.count)

    def strike(self, text: str) -> Strike | None:
        """Return the effect on a statement, or None."""
        if self._waiting and text.startswith(self._waiting[0][0]):
            self.struck += 1
            return self._waiting.popleft()[1]
        return None

    def clear(self) -> None:
        """Remove all waiting faults."""
        self._waiting.clear()
