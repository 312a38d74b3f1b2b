"""REST server: applies limits and faults around the functions of rest_api."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from http.client import responses
from typing import Any, Final

import msgspec
from aiohttp import web

from marketfeed_simulator.faults import RestError
from marketfeed_simulator.limits import Admission, RequestLimits
from marketfeed_simulator.request_faults import RequestFaults
from marketfeed_simulator.rest_api import ApiError, RestApi

_PAGE: Final = (
    "<html>\r\n<head><title>{status} {reason}</title></head>\r\n<body>\r\n<center><h1>{status} {reason}</h1></center>"
    "\r\n</body>\r\n</html>\r\n"
)
_JSON: Final = "application/json"


@dataclass(slots=True)
class Answer:
    """An HTTP response before it is sent."""

    status: int
    body: bytes
    content_type: str = _JSON
    headers: dict[str, str] = field(default_factory=dict)


class RestServer:
    """Request handler of /api/v3/<endpoint>.

    Attributes:
        requests: number of responses by endpoint and status; status 0 is a closed connection.
    """

    def __init__(
        self, api: RestApi, limits: RequestLimits, request_faults: RequestFaults, server_us: Callable[[], int]
    ) -> None:
        self.requests: Counter[tuple[str, int]] = Counter()
        self._api = api
        self._limits = limits
        self._request_faults = request_faults
        self._server_us = server_us

    async def handle(self, request: web.Request) -> web.Response:
        """Handle GET /api/v3/<endpoint>."""
        endpoint = request.match_info["endpoint"]
        delay_seconds = self._request_faults.delay_seconds(endpoint)
        if delay_seconds:
            await asyncio.sleep(delay_seconds)
        answer = self.answer(endpoint, request.query, request.headers, request.remote or "")
        if answer is None:
            if request.transport is not None:
                request.transport.abort()
            return web.Response()  # never sent
        return web.Response(
            body=answer.body,
            status=answer.status,
            headers=answer.headers,
            content_type=answer.content_type,
            charset="utf-8" if answer.content_type != _JSON else None,
        )

    def answer(
        self, endpoint: str, query: Mapping[str, str], headers: Mapping[str, str], address: str
    ) -> Answer | None:
        """Return the response to a request, or None to close the connection, and count it.

        Args:
            endpoint: path after /api/v3/.
            query: query parameters.
            headers: request headers.
            address: the client's address, for its limits.
        """
        weight = self._api.venue.weights.get(endpoint, 1)
        admission = self._limits.admit(address, weight, time.monotonic())
        answer = self._respond(endpoint, query, headers, admission)
        if answer is None:
            self.requests[endpoint, 0] += 1
            return None
        used = str(admission.used_weight)
        answer.headers |= {"X-MBX-USED-WEIGHT": used, "X-MBX-USED-WEIGHT-1M": used}
        self.requests[endpoint, answer.status] += 1
        return answer

    def _respond(
        self, endpoint: str, query: Mapping[str, str], headers: Mapping[str, str], admission: Admission
    ) -> Answer | None:
        if admission.status != HTTPStatus.OK:
            return self._refused(admission)
        fault = self._request_faults.error(endpoint)
        if fault is not None:
            return None if fault.cut else _broken(fault)
        unit = headers.get("X-MBX-TIME-UNIT", "").upper()
        microseconds = self._api.venue.microseconds and unit == "MICROSECOND"
        try:
            self._check_key(endpoint, headers)
            now_us, lag_us = self._server_us(), int(self._request_faults.lag_seconds * 1e6)
            value = self._api.answer(
                endpoint,
                query,
                server_us=now_us,
                microseconds=microseconds,
                until_us=now_us - lag_us if lag_us else None,
            )
        except ApiError as error:
            return _json(error.body(), error.status)
        if isinstance(value, list):
            value = self._apply_row_faults(value, query.get("symbol", ""), 1 if microseconds else 1000)
        return _json(value)

    def _apply_row_faults(
        self, rows: list[dict[str, Any]], symbol: str, unit_us: int
    ) -> list[dict[str, Any]]:
        """Apply the request faults to `rows` of trades or aggregates."""
        request_faults = self._request_faults
        if request_faults.lag_seconds:
            newest = (self._server_us() - int(request_faults.lag_seconds * 1e6)) // unit_us
            rows = [row for row in rows if row.get("time", row.get("T", 0)) <= newest]
        for row in rows if request_faults.odd_rows else ():
            if (symbol, row.get("id")) in request_faults.odd_rows:
                row["price"] = "1E-8"
        return rows

    def _check_key(self, endpoint: str, headers: Mapping[str, str]) -> None:
        if endpoint == "historicalTrades" and self._api.venue.history_needs_key:
            key = headers.get("X-MBX-APIKEY", "")
            if not (key.isascii() and key.isalnum()):
                raise ApiError(-2014, "API-key format invalid.", 401)

    def _refused(self, admission: Admission) -> Answer:
        if admission.status == 418:
            until_ms = int((time.time() + admission.retry_after_seconds) * 1000)
            text = (
                f"Way too much request weight used; IP banned until {until_ms}. "
                "Please use WebSocket Streams for live updates to avoid bans."
            )
        else:
            text = (
                f"Too much request weight used; current limit is {self._api.venue.weight_limit} request weight "
                "per 1 MINUTE. Please use WebSocket Streams for live updates to avoid polling the API."
            )
        answer = _json({"code": -1003, "msg": text}, admission.status)
        answer.headers["Retry-After"] = str(admission.retry_after_seconds)
        return answer


def _json(value: Any, status: int = 200) -> Answer:
    return Answer(status, msgspec.json.encode(value))


def _broken(fault: RestError) -> Answer:
    if fault.html:
        page = _PAGE.format(status=fault.status, reason=responses.get(fault.status, ""))
        answer = Answer(fault.status, page.encode(), "text/html")
    else:
        answer = _json(
            {"code": -1000, "msg": "An unknown error occurred while processing the request."}, fault.status
        )
    if fault.retry_after_seconds is not None:
        answer.headers["Retry-After"] = str(fault.retry_after_seconds)
    return answer
