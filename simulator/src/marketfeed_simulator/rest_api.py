"""REST endpoints as functions: parameters in, JSON value out.

Sources: the venues' rest-api and errors documents. A `limit` above the maximum is reduced to it.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from marketfeed_simulator.frames import Frame
from marketfeed_simulator.history import TradeHistory, aggregate_json, trade_json
from marketfeed_simulator.instruments import Instrument
from marketfeed_simulator.venue import Venue

_DEFAULT_LIMIT: Final = 500
_MAX_LIMIT: Final = 1000


class ApiError(Exception):
    """A response other than 200.

    Attributes:
        status: HTTP status.
        code: the venue's error code.
    """

    def __init__(self, code: int, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.code = code
        self.status = status

    def body(self) -> dict[str, Any]:
        """Return the body in the venue's format."""
        return {"code": self.code, "msg": str(self)}


@dataclass(slots=True)
class RestApi:
    """Data of the REST endpoints.

    Attributes:
        instruments: listed instruments by symbol.
        histories: trades by symbol; a listed symbol may have none yet.
        quotes: newest quote by symbol; a listed symbol may have none yet.
        recorded_info: exchangeInfo entries of listed symbols without a market.
    """

    venue: Venue
    instruments: dict[str, Instrument]
    histories: Mapping[str, TradeHistory]
    quotes: Mapping[str, Frame]
    recorded_info: dict[str, dict[str, Any]]

    def answer(
        self,
        endpoint: str,
        given: Mapping[str, str],
        *,
        server_us: int,
        microseconds: bool,
        until_us: int | None = None,
    ) -> Any:
        """Return the response of an endpoint.

        Args:
            endpoint: path after /api/v3/.
            given: query parameters.
            server_us: the venue's time.
            microseconds: whether times are returned in microseconds.
            until_us: time of the newest trade that REST has, where it lags behind the streams.

        Raises:
            ApiError: the request is rejected.
        """
        match endpoint:
            case "ping":
                return {}
            case "time":
                return {"serverTime": server_us if microseconds else server_us // 1000}
            case "exchangeInfo":
                return self._exchange_info(given, server_us if microseconds else server_us // 1000)
            case "trades":
                rows = self._history(given).recent(_limit(given), until_us)
                return [trade_json(row, microseconds=microseconds) for row in rows]
            case "historicalTrades":
                return self._historical_trades(given, microseconds)
            case "aggTrades":
                return self._aggregates(given, microseconds)
            case "ticker/bookTicker":
                return self._book_ticker(given)
            case "depth":
                return self._depth(given)
        raise ApiError(-1000, f"no such endpoint: {endpoint}", 404)

    def _history(self, given: Mapping[str, str]) -> TradeHistory:
        symbol = self._symbol(given)
        return self.histories.get(symbol) or TradeHistory()

    def _symbol(self, given: Mapping[str, str]) -> str:
        symbol = given.get("symbol", "")
        if not symbol:
            raise ApiError(-1102, "Mandatory parameter 'symbol' was not sent, was empty/null, or malformed.")
        if symbol not in self.instruments and symbol not in self.recorded_info:
            raise ApiError(-1121, "Invalid symbol.")
        return symbol

    def _book_ticker(self, given: Mapping[str, str]) -> dict[str, str]:
        symbol = self._symbol(given)
        quote = self.quotes.get(symbol)
        fields = msgspec.json.decode(quote.data) if quote is not None else dict.fromkeys("bBaA", "0.00000000")
        names = {"bidPrice": "b", "bidQty": "B", "askPrice": "a", "askQty": "A"}
        return {"symbol": symbol, **{name: fields[field] for name, field in names.items()}}

    def _depth(self, given: Mapping[str, str]) -> dict[str, Any]:
        """Return an order book of one level: the best bid and ask with their update id."""
        quote = self.quotes.get(self._symbol(given))
        if quote is None:
            return {"lastUpdateId": 0, "bids": [], "asks": []}
        fields = msgspec.json.decode(quote.data)
        best = {"bids": [[fields["b"], fields["B"]]], "asks": [[fields["a"], fields["A"]]]}
        return {"lastUpdateId": fields["u"], **best}

    def _historical_trades(self, given: Mapping[str, str], microseconds: bool) -> list[dict[str, Any]]:
        history, limit, first = self._history(given), _limit(given), _integer(given, "fromId")
        rows = history.recent(limit) if first is None else history.since(first, limit)
        return [trade_json(row, microseconds=microseconds) for row in rows]

    def _aggregates(self, given: Mapping[str, str], microseconds: bool) -> list[dict[str, Any]]:
        history, limit, first = self._history(given), _limit(given), _integer(given, "fromId")
        start, end = _integer(given, "startTime"), _integer(given, "endTime")
        if first is not None and (start is not None or end is not None):
            raise ApiError(-1128, "Combination of optional parameters invalid.")
        widest = self.venue.aggregate_window_seconds
        if widest and start is not None and end is not None and end - start >= widest * 1000:
            raise ApiError(-1127, f"More than {widest / 3600:.0f} hours between startTime and endTime.")
        found = history.aggregates(
            limit,
            first,
            None if start is None else start * 1000,
            None if end is None else end * 1000 + 999,
        )
        return [aggregate_json(aggregate, microseconds=microseconds) for aggregate in found]

    def _exchange_info(self, given: Mapping[str, str], server_time: int) -> dict[str, Any]:
        entries = dict(self.recorded_info)
        entries |= {name: instrument.exchange_info() for name, instrument in self.instruments.items()}
        requested = _requested_symbols(given)
        if requested is not None:
            if any(name not in entries for name in requested):
                raise ApiError(-1121, "Invalid symbol.")
            entries = {name: entries[name] for name in requested}
        return {
            "timezone": "UTC",
            "serverTime": server_time,
            "rateLimits": _rate_limits(self.venue),
            "exchangeFilters": [],
            "symbols": _with_status(entries.values(), given),
        }


def _rate_limits(venue: Venue) -> list[dict[str, Any]]:
    return [
        {"rateLimitType": kind, "interval": interval, "intervalNum": number, "limit": limit}
        for kind, interval, number, limit in (
            ("REQUEST_WEIGHT", "MINUTE", 1, venue.weight_limit),
            ("ORDERS", "SECOND", 10, 100),
            ("ORDERS", "DAY", 1, 200000),
            ("RAW_REQUESTS", "MINUTE", 5, venue.request_limit),
        )
    ]


def _requested_symbols(given: Mapping[str, str]) -> list[str] | None:
    if "symbol" in given and "symbols" in given:
        raise ApiError(-1128, "Combination of optional parameters invalid.")
    if "symbol" in given:
        return [given["symbol"]]
    if "symbols" not in given:
        return None
    try:
        names = json.loads(given["symbols"])
    except json.JSONDecodeError:
        names = None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ApiError(
            -1100, "Illegal characters found in parameter 'symbols'; legal range is '[\"A\",\"B\"]'."
        )
    return names


def _with_status(entries: Iterable[dict[str, Any]], given: Mapping[str, str]) -> list[dict[str, Any]]:
    status = given.get("symbolStatus")
    return [entry for entry in entries if status is None or entry["status"] == status]


def _limit(given: Mapping[str, str]) -> int:
    limit = _integer(given, "limit")
    if limit is None:
        return _DEFAULT_LIMIT
    if limit < 1:
        raise ApiError(-1130, "Data sent for parameter 'limit' is not valid.")
    return min(limit, _MAX_LIMIT)


def _integer(given: Mapping[str, str], name: str) -> int | None:
    text = given.get(name)
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        raise ApiError(
            -1100, f"Illegal characters found in parameter '{name}'; legal range is '^[0-9]{{1,20}}$'."
        )
    return int(text)
