"""Caches of the newest trades and quotes, to compare the content of duplicates.

Reads are kept as lists and indexed only for a lookup: a message without a duplicate costs nothing.
"""

from collections import deque
from operator import attrgetter
from typing import Final, Generic, TypeVar

from marketfeed_wire import BookTicker, Trade

MAX_TRADES: Final = 10_000
"""Maximum number of trades of all symbols: about 4 MB, and seconds of a venue's whole market, while overlapping
connections are milliseconds apart. More would not fit the processor's cache and slow down every trade."""
MAX_QUOTES: Final = 2_000
"""Maximum number of quotes of all symbols. A duplicate that is not found counts as a quote of a lagging connection."""

Message = TypeVar("Message", Trade, BookTicker)


class _Recent(Generic[Message]):
    """Cache of the newest reads.

    Args:
        id_name: the attribute that identifies a message of a symbol.
        max_messages: maximum number of messages.
    """

    def __init__(self, id_name: str, max_messages: int) -> None:
        self._key = attrgetter("symbol", id_name)
        self._max_messages = max_messages
        self._held = 0
        self._reads: deque[list[Message]] = deque()
        self._indexed = 0  # number of indexed reads, from the oldest on
        self._index: dict[tuple[str, int], Message] = {}

    def add(self, messages: list[Message]) -> None:
        """Add the messages of one read; the list must not be changed any more."""
        self._reads.append(messages)
        self._held += len(messages)
        while self._held > self._max_messages and len(self._reads) > 1:
            oldest = self._reads.popleft()
            self._held -= len(oldest)
            if self._indexed:
                self._indexed -= 1
                for message in oldest:
                    self._remove(message)

    def find(self, symbol: str, number: int) -> Message | None:
        """Return the first cached message with this id; None without one."""
        while self._indexed < len(self._reads):
            for message in self._reads[self._indexed]:
                self._index.setdefault(self._key(message), message)
            self._indexed += 1
        return self._index.get((symbol, number))

    def discard(self, messages: list[Message]) -> None:
        """Remove rejected messages of the newest read."""
        numbers = {id(message) for message in messages}
        kept = [message for message in self._reads[-1] if id(message) not in numbers]
        self._held -= len(self._reads[-1]) - len(kept)
        self._reads[-1] = kept
        for message in messages:
            self._remove(message)

    def restart_symbol(self, symbol: str, held: list[Message]) -> None:
        """Replace the messages of a symbol by `held` after an id reset."""
        reads: list[list[Message]] = [
            [message for message in read if message.symbol != symbol] for read in self._reads
        ]
        reads.append(list(held))
        self._reads = deque(read for read in reads if read)
        self._index.clear()
        self._held, self._indexed = sum(map(len, self._reads)), 0

    def _remove(self, message: Message) -> None:
        if self._index.get(self._key(message)) is message:
            del self._index[self._key(message)]


class RecentTrades(_Recent[Trade]):
    """Cache of the newest trades."""

    def __init__(self, max_trades: int = MAX_TRADES) -> None:
        super().__init__("trade_id", max_trades)


class RecentQuotes(_Recent[BookTicker]):
    """Cache of the newest quotes."""

    def __init__(self, max_quotes: int = MAX_QUOTES) -> None:
        super().__init__("update_id", max_quotes)

    def has_duplicate(self, quote: BookTicker) -> bool:
        """Return whether another quote with this id and the same content is cached."""
        first = self.find(quote.symbol, quote.update_id)
        return first is not None and first is not quote and _content(first) == _content(quote)


def _content(quote: BookTicker) -> tuple[str, str, str, str]:
    return quote.bid_price, quote.bid_qty, quote.ask_price, quote.ask_qty
