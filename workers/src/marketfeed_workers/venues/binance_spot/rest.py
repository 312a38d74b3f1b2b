"""Binance's REST side: which symbols there are. Source: binance-spot-api-docs, rest-api.md."""

from typing import Final

import msgspec
from aiohttp import ClientError, ClientSession, ClientTimeout

from marketfeed_workers.errors import Unreachable, error_for_status
from marketfeed_workers.venues.venue import SymbolInfo

_TIMEOUT: Final = ClientTimeout(total=10)


class _Symbol(msgspec.Struct):
    symbol: str
    status: str


class _ExchangeInfo(msgspec.Struct):
    symbols: list[_Symbol]


class BinanceRest:
    """See `VenueRest`."""

    def __init__(self, base: str, session: ClientSession) -> None:
        self._base = base.rstrip("/")
        self._session = session

    async def symbols(self) -> dict[str, SymbolInfo]:
        """Every symbol that the venue lists.

        All are fetched and filtered here: asked for by name, one unknown symbol fails the whole request (-1121).
        """
        body = await self._get("/api/v3/exchangeInfo")
        try:
            info = msgspec.json.decode(body, type=_ExchangeInfo)
        except msgspec.DecodeError as error:
            raise Unreachable("bad_answer", f"{self._base}/api/v3/exchangeInfo: {error}") from None
        return {each.symbol: SymbolInfo(each.status, each.status == "TRADING") for each in info.symbols}

    async def _get(self, path: str) -> bytes:
        url = self._base + path
        try:
            async with self._session.get(url, timeout=_TIMEOUT) as answer:
                if answer.status != 200:
                    raise error_for_status(answer.status, answer.headers.get("Retry-After"), url)
                return await answer.read()
        except (ClientError, TimeoutError) as error:
            raise Unreachable("rest_unreachable", f"{url}: {error or type(error).__name__}") from error
