"""Warm-up: the wait until a new session delivers what the session in use delivers."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Final, Protocol

from marketfeed_workers.connection.session import Session
from marketfeed_workers.connection.transports.socket import Closed
from marketfeed_workers.venues.errors import Unreachable

SETTLE_SECONDS: Final = 1.0
"""Maximum delay between the copies of a message over two sessions."""


class StreamStates(Protocol):
    """State of streams by name, for a connection."""

    def broken(self, names: list[str]) -> set[str]:
        """Return those that are stalled or unverified."""

    def first_message_timeout(self, name: str) -> float:
        """Return the seconds for the first message of a stream in a new session before it is probed."""

    def seen(self, name: str) -> int:
        """Return the number of received messages of a stream, over all sessions."""

    async def undelivered(self, names: list[str]) -> set[str]:
        """Return those with newer data in REST than any session has delivered."""


class WarmUp:
    """Warm-up of one session.

    Args:
        new: the new session.
        ended: done when it has ended.
        streams: state of the streams.
        monotonic: monotonic clock.
        max_seconds: maximum wait for first messages.
    """

    def __init__(
        self,
        new: Session,
        ended: "asyncio.Task[Closed]",
        streams: StreamStates,
        monotonic: Callable[[], float],
        max_seconds: float,
    ) -> None:
        self._new = new
        self._ended = ended
        self._streams = streams
        self._monotonic = monotonic
        self._max_seconds = max_seconds

    async def wait(self, names: Callable[[], list[str]], must_deliver: set[str]) -> None:
        """Wait until each stream has delivered or nothing newer exists.

        Args:
            names: returns the names of the connection's streams.
            must_deliver: stalled streams; the session is useless if it delivers none of them.

        Raises:
            Unreachable: the session ended, or does not deliver what the session in use delivers.
        """
        seen = await self._first_messages()
        missing = await self._missing(seen)
        if must_deliver and must_deliver <= self._new.undelivered:
            raise Unreachable("stream_stalled", _lacks(must_deliver, "either"))
        missing -= self._streams.broken(names())
        if missing:
            raise Unreachable("stream_stalled", _lacks(missing, "though the one in use delivers them"))

    async def _first_messages(self) -> dict[str, int]:
        """Wait for the first messages; return the number of messages of each stream received before."""
        new, streams, started = self._new, self._streams, self._monotonic()
        seen: dict[str, int] = {}
        while new.undelivered:
            waited = self._monotonic() - started
            if waited >= SETTLE_SECONDS and not seen:
                seen = {name: streams.seen(name) for name in new.undelivered}
            limit = max(map(streams.first_message_timeout, new.undelivered))
            # The setting also bounds streams without a history.
            left = min(max(limit, 2 * SETTLE_SECONDS), self._max_seconds) - waited
            if left <= 0:
                break
            await self._or_ended(new.warm.wait(), min(left, SETTLE_SECONDS / 4))
        return seen

    async def _missing(self, seen: dict[str, int]) -> set[str]:
        """Return the streams with newer data than the new session has delivered."""
        new, streams = self._new, self._streams
        missing = {
            name for name in new.undelivered if streams.seen(name) > seen.get(name, streams.seen(name))
        }
        if missing:  # delivered only by the session in use, perhaps a moment ago
            await self._or_ended(new.warm.wait(), SETTLE_SECONDS)
        behind = await streams.undelivered(sorted(new.undelivered - missing))
        if behind:
            await self._or_ended(new.warm.wait(), SETTLE_SECONDS)
        return (missing | behind) & new.undelivered

    async def _or_ended(self, what: Coroutine[object, object, object], seconds: float) -> None:
        """Wait for `what`, at most `seconds`.

        Raises:
            Unreachable: the session ended.
        """
        waiting = asyncio.create_task(what, name="warm")
        try:
            await asyncio.wait({waiting, self._ended}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            waiting.cancel()
        if self._ended.done():
            ending = self._ended.result()
            raise Unreachable("connection_closed", str(ending))


def _lacks(missing: set[str], how: str) -> str:
    return f"the new connection does not deliver {', '.join(sorted(missing)[:5])} {how}"
