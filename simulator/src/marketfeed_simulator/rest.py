"""The REST side: limits and faults around the plain functions of rest_api."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from typing import Any, Final

import msgspec
from aiohttp import web

from marketfeed_simulator.doors import Doors
from marketfeed_simulator.faults import RestError
from marketfeed_simulator.limits import Admission, RequestLimits
from marketfeed_simulator.rest_api import ApiError, RestApi

_PAGE: Final = (
    "<html>\r\n<head><title>{status} {reason}</title></head>\r\n<body>\r\n<center><h1>{status} {reason}</h1></center>"
    "\r\n</body>\r\n</html>\r\n"
)


class RestSide:
    """Answers /api/v3/<endpoint>.

    Attributes:
        requests: how often each endpoint was answered with each status.
    """

    def __init__(
        self, api: RestApi, limits: RequestLimits, doors: Doors, server_us: Callable[[], int]
    ) -> None:
        self.requests: Counter[tuple[str, int]] = Counter()
        self._api = api
        self._limits = limits
        self._doors = doors
        self._server_us = server_us

    async def handle(self, request: web.Request) -> web.Response:
        """GET /api/v3/<endpoint>"""
        endpoint = request.match_info["endpoint"]
        delay_seconds = self._doors.delay_seconds(endpoint)
        if delay_seconds:
            await asyncio.sleep(delay_seconds)
        weight = self._api.venue.weights.get(endpoint, 1)
        admission = self._limits.admit(request.remote or "", weight, time.monotonic())
        response = self._respond(endpoint, request, admission)
        used = str(admission.used_weight)
        response.headers.update({"X-MBX-USED-WEIGHT": used, "X-MBX-USED-WEIGHT-1M": used})
        self.requests[endpoint, response.status] += 1
        return response

    def _respond(self, endpoint: str, request: web.Request, admission: Admission) -> web.Response:
        if admission.status != 200:
            return self._refused(admission)
        fault = self._doors.error(endpoint)
        if fault is not None:
            return _broken(fault)
        unit = request.headers.get("X-MBX-TIME-UNIT", "").upper()
        microseconds = self._api.venue.microseconds and unit == "MICROSECOND"
        try:
            self._check_key(endpoint, request)
            value = self._api.answer(
                endpoint, request.query, server_us=self._server_us(), microseconds=microseconds
            )
        except ApiError as error:
            return _json(error.body(), error.status)
        return _json(value)

    def _check_key(self, endpoint: str, request: web.Request) -> None:
        if endpoint == "historicalTrades" and self._api.venue.history_needs_key:
            key = request.headers.get("X-MBX-APIKEY", "")
            if not (key.isascii() and key.isalnum()):
                raise ApiError(-2014, "API-key format invalid.", 401)

    def _refused(self, admission: Admission) -> web.Response:
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
        response = _json({"code": -1003, "msg": text}, admission.status)
        response.headers["Retry-After"] = str(admission.retry_after_seconds)
        return response


def _json(value: Any, status: int = 200) -> web.Response:
    return web.Response(body=msgspec.json.encode(value), status=status, content_type="application/json")


def _broken(fault: RestError) -> web.Response:
    if fault.html:
        response = web.Response(status=fault.status, content_type="text/html")
        response.text = _PAGE.format(status=fault.status, reason=response.reason)
    else:
        response = _json(
            {"code": -1000, "msg": "An unknown error occurred while processing the request."}, fault.status
        )
    if fault.retry_after_seconds is not None:
        response.headers["Retry-After"] = str(fault.retry_after_seconds)
    return response
