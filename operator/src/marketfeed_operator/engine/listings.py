"""What venues say of their symbols, for feeds with a symbolSelector: asked every few minutes, beside reconciliation."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Final

import aiohttp

from marketfeed_operator.api import Spec
from marketfeed_operator.observed import Key, Listing

REST_BASES: Final = {"binance_us": "https://api.binance.us", "binance": "https://api.binance.com"}
ANSWER_SECONDS: Final = 20
MAX_BYTES: Final = 64 * 2**20


class Listings:
    """The newest listing of each venue that a feed asked for.

    Args:
        changed: is told of each feed that asked when the answer is new.
    """

    def __init__(self, changed: Callable[[Key], Awaitable[None]]) -> None:
        self._changed = changed
        self._asked: dict[str, set[Key]] = {}
        self._known: dict[str, Listing] = {}
        self._news = asyncio.Event()

    def of(self, feed: Key, spec: Spec) -> Listing | None:
        """The listing that a feed's selector needs; None when it has none."""
        self.forget(feed)
        if spec.symbol_selector is None:
            return None
        base = (spec.endpoints and spec.endpoints.rest) or REST_BASES[spec.venue]
        if base not in self._known:
            self._news.set()
        self._asked.setdefault(base, set()).add(feed)
        return self._known.setdefault(base, Listing(None))

    def forget(self, feed: Key) -> None:
        """Ask nothing for the feed any more."""
        for askers in self._asked.values():
            askers.discard(feed)

    async def run(self, interval_seconds: float, retry_seconds: float) -> None:
        """Ask every venue that a feed needs, again and again; sooner after a failure."""
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=ANSWER_SECONDS)) as session:
            while True:
                self._news.clear()
                failed = False
                for base in [base for base, askers in self._asked.items() if askers]:
                    failed |= not await self._ask(session, base)
                try:
                    async with asyncio.timeout(retry_seconds if failed else interval_seconds):
                        await self._news.wait()
                except TimeoutError:
                    continue

    async def _ask(self, session: aiohttp.ClientSession, base: str) -> bool:
        before = self._known.get(base, Listing(None))
        try:
            after = Listing(await listed(session, base))
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError, KeyError, TypeError) as error:
            after = Listing(
                before.symbols, f"{base} does not list its symbols: {error or type(error).__name__}"
            )
        self._known[base] = after
        if after != before:
            for feed in list(self._asked.get(base, ())):
                await self._changed(feed)
        return not after.problem


async def listed(session: aiohttp.ClientSession, base: str) -> dict[str, tuple[str, str]]:
    """Symbol -> (status, quote asset), as the venue at `base` says (GET /api/v3/exchangeInfo).

    Raises:
        aiohttp.ClientError, TimeoutError, OSError: it does not answer.
        ValueError, KeyError, TypeError: its answer is another.
    """
    async with session.get(f"{base.rstrip('/')}/api/v3/exchangeInfo") as answer:
        if answer.status != 200:
            raise ValueError(f"HTTP {answer.status}")
        body = await answer.content.read(MAX_BYTES)
        while not answer.content.at_eof() and len(body) < MAX_BYTES:
            body += await answer.content.read(MAX_BYTES - len(body))
    return {found["symbol"]: (found["status"], found["quoteAsset"]) for found in json.loads(body)["symbols"]}
