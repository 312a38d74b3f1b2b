"""Venues' symbol lists, for feeds with a symbolSelector, requested periodically outside of reconciliation.

Each address has its own task: a slow or faulty venue affects only the feeds that use it. Addresses from
spec.endpoints share a few slots, of which a namespace can occupy only some.
"""

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final

import aiohttp

from marketfeed_operator.api import Spec
from marketfeed_operator.engine.exchange_info import MAX_BYTES, Listed, read_exchange_info
from marketfeed_operator.engine.metrics import Metrics
from marketfeed_operator.observed import Key, Listing
from marketfeed_operator.text import printable
from marketfeed_service import logs
from marketfeed_service.http_body import decode_body

log = logs.get(__name__)

REST_BASES: Final = {"binance_us": "https://api.binance.us", "binance": "https://api.binance.com"}
RESPONSE_SECONDS: Final = 20
OWN_ENDPOINTS_AT_ONCE: Final = 16
PER_NAMESPACE_AT_ONCE: Final = 2


class Listings:
    """Latest symbol list of each venue in use.

    Args:
        changed: called for each feed whose list has changed.
    """

    def __init__(self, changed: Callable[[Key], Awaitable[None]], metrics: Metrics) -> None:
        self._changed = changed
        self._metrics = metrics
        self._users: dict[str, set[Key]] = {}
        self._listings: dict[str, Listing] = {}
        self._wake = asyncio.Event()
        self._slots = asyncio.Semaphore(OWN_ENDPOINTS_AT_ONCE)
        self._slots_of = defaultdict[str, asyncio.Semaphore](lambda: asyncio.Semaphore(PER_NAMESPACE_AT_ONCE))

    def of(self, feed: Key, spec: Spec) -> Listing | None:
        """Return the list for a feed's selector; None without a selector."""
        base = None
        if spec.symbol_selector is not None:
            base = (spec.endpoints and spec.endpoints.rest) or REST_BASES[spec.venue]
        self._release(feed, other_than=base)
        if base is None:
            return None
        if base not in self._users:
            self._users[base] = set()
            self._wake.set()
        self._users[base].add(feed)
        return self._listings.setdefault(base, Listing(None))

    def forget(self, feed: Key) -> None:
        """Stop requesting for the feed."""
        self._release(feed, other_than=None)

    def _release(self, feed: Key, *, other_than: str | None) -> None:
        for base in [base for base, users in self._users.items() if feed in users and base != other_than]:
            self._users[base].discard(feed)
            if not self._users[base]:
                del self._users[base]
                self._listings.pop(base, None)
                self._wake.set()

    async def run(self, interval_seconds: float, retry_seconds: float) -> None:
        """Request the lists of all venues in use periodically; sooner after a failure."""
        tasks: dict[str, asyncio.Task[None]] = {}
        timeout = aiohttp.ClientTimeout(total=RESPONSE_SECONDS)
        async with aiohttp.ClientSession(timeout=timeout, cookie_jar=aiohttp.DummyCookieJar()) as session:
            try:
                while True:
                    self._wake.clear()
                    for base in tasks.keys() - self._users.keys():
                        await _ended(tasks.pop(base))
                    for base in self._users.keys() - tasks.keys():
                        following = self._follow(session, base, interval_seconds, retry_seconds)
                        tasks[base] = asyncio.create_task(following, name=f"listing {base}")
                    await self._wake.wait()
            finally:
                for task in tasks.values():
                    await _ended(task)

    async def _follow(
        self, session: aiohttp.ClientSession, base: str, interval_seconds: float, retry_seconds: float
    ) -> None:
        while True:
            succeeded = await self._refresh(session, base)
            await asyncio.sleep(interval_seconds if succeeded else retry_seconds)

    async def _refresh(self, session: aiohttp.ClientSession, base: str) -> bool:
        async with self._slot(base):
            try:
                found = await listed(session, base)
                after = Listing(found.symbols, skipped=found.skipped)
            # The address is a feed's own: any failure becomes that feed's condition.
            except Exception as error:  # noqa: BLE001
                self._metrics.listing_failures.inc()
                reason = printable(f"{error}", 300) or type(error).__name__
                after = Listing(self._listing(base).symbols, f"{base} does not list its symbols: {reason}")
        before = self._listing(base)
        if base not in self._users:  # no longer in use
            return True
        self._listings[base] = after
        if after != before:
            _report(base, before, after)
            for feed in list(self._users[base]):
                await self._changed(feed)
        return not after.problem

    @contextlib.asynccontextmanager
    async def _slot(self, base: str) -> AsyncIterator[None]:
        """Wait for a slot to request from `base`, if it is an address from spec.endpoints."""
        users = self._users.get(base)
        if base in REST_BASES.values() or not users:
            yield
            return
        async with self._slots_of[min(users)[0]], self._slots:
            yield

    def _listing(self, base: str) -> Listing:
        return self._listings.get(base, Listing(None))


def _report(base: str, before: Listing, after: Listing) -> None:
    if after.problem and not before.problem:
        log.warning("symbol list failed", address=base, reason=after.problem)
    elif before.problem and not after.problem:
        log.info("symbol list recovered", address=base)
    if after.skipped != before.skipped and not after.problem:
        log.warning("listed symbols skipped", address=base, count=after.skipped)


async def _ended(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait({task})


async def listed(session: aiohttp.ClientSession, base: str) -> Listed:
    """Return the symbols that the venue at `base` lists (GET /api/v3/exchangeInfo). Redirects are not followed.

    Raises:
        BadBody: the response is too large, or has no valid symbol.
        ValueError: the status is not 200, or the address is invalid.
        aiohttp.ClientError, TimeoutError, OSError: no response.
    """
    url = f"{base.rstrip('/')}/api/v3/exchangeInfo"
    # A redirect would let the server choose the next address, and the operator can reach more than the author of a
    # feed.
    async with session.get(url, allow_redirects=False) as response:
        if response.status != 200:
            raise ValueError(f"HTTP {response.status}")
        return await decode_body(response, read_exchange_info, max_bytes=MAX_BYTES)
