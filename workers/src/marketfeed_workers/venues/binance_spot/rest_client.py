"""Requests to Binance's REST API: weight budget, key, errors, decoding. Source: binance-spot-api-docs, rest-api.md."""

import asyncio
import time
from collections.abc import Callable
from http import HTTPStatus
from typing import Final, NamedTuple, TypeVar

import msgspec
from aiohttp import ClientError, ClientTimeout

from marketfeed_service.http_body import BodyTooLargeError, read_body
from marketfeed_workers.venues.binance_spot import rows
from marketfeed_workers.venues.binance_spot.rows import (
    INVALID_MESSAGE_ERRORS,
    AggregateRow,
    Page,
    Row,
    RowReader,
)
from marketfeed_workers.venues.clock import VenueClock
from marketfeed_workers.venues.errors import Limited, UnknownSymbol, Unreachable, error_for_status
from marketfeed_workers.venues.venue import RestAccess

T = TypeVar("T")

_TIMEOUT: Final = ClientTimeout(total=10)
_NO_SYMBOL: Final = -1121
_USED_WEIGHT_DIGITS: Final = 10
_OFF_LOOP_BYTES: Final = 256 * 1024
"""Larger bodies are decoded in a thread, so that the event loop continues to read streams."""


class Weights(NamedTuple):
    """Request weights by endpoint, for planning; each response has the weight that was used."""

    exchange_info: int
    trades: int
    historical_trades: int
    agg_trades: int
    book_ticker: int
    depth: int
    time: int
    a_minute: int
    """Documented limit per minute, used if exchangeInfo has no plausible one."""


class _Error(msgspec.Struct):
    code: int


_error: Final = msgspec.json.Decoder(_Error)


class RestClient:
    """Sends requests within the weight budget.

    Attributes:
        base: base address.
        budget: the weight budget of the process.
        weights: weights by endpoint.
        api_key: the key; "" without one.
    """

    def __init__(self, access: RestAccess, weights: Weights) -> None:
        self.base = access.base.rstrip("/")
        self.budget = access.budget
        self.weights = weights
        self.api_key = access.api_key.get_secret_value()
        self._session = access.session
        self._latest_us = access.latest_us or VenueClock(access.now_us, time.monotonic).latest_us

    async def aggregate_rows(
        self, symbol: str, is_backfill: bool = False, /, **parameters: str
    ) -> Page[AggregateRow]:
        """Fetch a page of aggregates."""
        weight = self.weights.agg_trades
        return await self.rows(rows.AGGREGATES, "aggTrades", weight, is_backfill, symbol=symbol, **parameters)

    async def rows(
        self,
        reader: RowReader[Row],
        endpoint: str,
        weight: int,
        is_backfill: bool = False,
        /,
        **parameters: str,
    ) -> Page[Row]:
        """Fetch a page of rows.

        Args:
            reader: reads the rows of a body.
            endpoint: the path below /api/v3.
            weight: request weight of the endpoint.
            is_backfill: whether the request is limited to the share of backfill.
            parameters: query of the request.
        """

        def read(body: bytes) -> Page[Row]:
            return reader.read(body, self._latest_us() // 1000)

        return await self.get(read, endpoint, weight, is_backfill, **parameters)

    async def get(
        self,
        decode: Callable[[bytes], T],
        endpoint: str,
        weight: int,
        is_backfill: bool = False,
        /,
        **parameters: str,
    ) -> T:
        """Send a request when the weight budget permits it; return the decoded response.

        Args:
            decode: decodes a body; one of INVALID_MESSAGE_ERRORS for an invalid one.
            endpoint: the path below /api/v3.
            weight: request weight of the endpoint.
            is_backfill: whether the request is limited to the share of backfill.
            parameters: query of the request.

        Raises:
            VenueError: the venue is unreachable, rate limits, or returns an error or an invalid response.
        """
        await self.budget.acquire(weight, is_backfill=is_backfill)
        return await self.request(decode, endpoint, **parameters)

    async def request(self, decode: Callable[[bytes], T], endpoint: str, **parameters: str) -> T:
        """Send a request at once; see `get`."""
        url = f"{self.base}/api/v3/{endpoint}"
        headers = {"X-MBX-APIKEY": self.api_key} if self.api_key else {}
        try:
            # No redirects: only the user decides where data comes from, and the key must not be sent elsewhere.
            async with self._session.get(
                url, params=parameters, headers=headers, timeout=_TIMEOUT, allow_redirects=False
            ) as response:
                used = response.headers.get("X-MBX-USED-WEIGHT-1M", "")
                if used.isascii() and used.isdigit() and len(used) < _USED_WEIGHT_DIGITS:
                    self.budget.observe(int(used))
                if response.status != HTTPStatus.OK:
                    error = error_for_status(response.status, response.headers.get("Retry-After"), url)
                    if (
                        response.status == HTTPStatus.BAD_REQUEST
                        and _code(await read_body(response)) == _NO_SYMBOL
                    ):
                        raise UnknownSymbol(error.reason, str(error))
                    raise error
                body = await read_body(response)
        except Limited as error:
            self.budget.block(error)
            raise
        except BodyTooLargeError as error:
            raise Unreachable("bad_answer", f"{url}: {error}") from None
        except (ClientError, TimeoutError) as error:
            raise Unreachable("rest_unreachable", f"{url}: {str(error) or type(error).__name__}") from error
        try:
            if len(body) > _OFF_LOOP_BYTES:
                return await asyncio.to_thread(decode, body)
            return decode(body)
        except INVALID_MESSAGE_ERRORS as error:
            raise Unreachable("bad_answer", f"{url} returned an invalid response: {error}") from None


def _code(body: bytes) -> int | None:
    """Return the venue's error code in the body of an error response; None if there is none."""
    try:
        return _error.decode(body).code
    except INVALID_MESSAGE_ERRORS:
        return None
