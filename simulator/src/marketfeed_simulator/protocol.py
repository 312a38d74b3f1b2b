"""Requests of a client over its WebSocket, and the venue's replies. No I/O.

Source of methods, replies and error codes: "Live Subscribing/Unsubscribing to streams" in the venues' stream docs;
code 4 is not documented but was observed.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from marketfeed_simulator.venue import Venue

_METHODS: Final = ("SUBSCRIBE", "UNSUBSCRIBE", "LIST_SUBSCRIPTIONS", "SET_PROPERTY", "GET_PROPERTY")


class RequestError(Exception):
    """A request whose reply is an error.

    Attributes:
        code: the venue's error code.
        request_id: part of the reply only where the docs show it.
    """

    def __init__(self, code: int, message: str, request_id: object = None) -> None:
        super().__init__(message)
        self.code = code
        self.request_id = request_id

    def reply(self) -> bytes:
        """Return the reply in the venue's format."""
        fields: dict[str, Any] = {"code": self.code, "msg": str(self)}
        if self.request_id is not None:
            fields["id"] = self.request_id
        return msgspec.json.encode(fields)


@dataclass(frozen=True, slots=True)
class Outcome:
    """The reply to a request, and the streams that were added or removed."""

    reply: bytes
    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()


class Session:
    """State of a connection: its streams in the order of subscription, and its one property."""

    def __init__(self, venue: Venue, *, combined: bool, streams: Iterable[str] = ()) -> None:
        self._venue = venue
        self.combined = combined
        self.streams: dict[str, None] = dict.fromkeys(streams)

    def handle(self, text: str) -> Outcome:
        """Process a request and return the reply. Never raises: errors are replies."""
        try:
            method, params, request_id = self._parse(text)
            return getattr(self, f"_{method.lower()}")(params, request_id)  # type: ignore[no-any-return]
        except RequestError as error:
            return Outcome(error.reply())

    def _parse(self, text: str) -> tuple[str, list[Any], Any]:
        try:
            request = json.loads(text)
        except json.JSONDecodeError as error:
            raise RequestError(
                3, f"Invalid JSON: expected value at line {error.lineno} column {error.colno}"
            ) from None
        except RecursionError:
            raise RequestError(3, "Invalid JSON: recursion limit exceeded at line 1 column 128") from None
        where = f"at line 1 column {len(text)}"
        if not isinstance(request, dict) or "method" not in request:
            raise RequestError(2, f"Invalid request: missing field `method` {where}")
        method = request["method"]
        if method not in _METHODS:
            names = ", ".join(f"`{name}`" for name in _METHODS)
            raise RequestError(
                2, f"Invalid request: unknown variant `{method}`, expected one of {names} {where}"
            )
        if not self._valid_id(request):
            raise RequestError(2, "Invalid request: request ID must be an unsigned integer")
        params = request.get("params", [])
        if not isinstance(params, list):
            raise RequestError(2, f"Invalid request: params must be an array {where}")
        if request.keys() - {"method", "params", "id"}:
            raise RequestError(2, "Invalid request: too many parameters")
        return method, params, request["id"]

    def _valid_id(self, request: dict[str, Any]) -> bool:
        if "id" not in request:
            return False
        value = request["id"]
        if isinstance(value, int) and not isinstance(value, bool):
            return -(2**63) <= value < 2**63 if self._venue.text_ids else 0 <= value < 2**64
        if isinstance(value, str):
            return self._venue.text_ids and len(value) <= 36
        return value is None and self._venue.text_ids

    def _names(self, params: list[Any]) -> list[str]:
        if not params or not all(isinstance(name, str) for name in params):
            raise RequestError(2, "Invalid request: params must be an array of stream names")
        return list(dict.fromkeys(params))

    def _subscribe(self, params: list[Any], request_id: object) -> Outcome:
        added = tuple(name for name in self._names(params) if name not in self.streams)
        if len(self.streams) + len(added) > self._venue.streams_per_connection:
            raise RequestError(4, "Too many subscriptions", request_id)
        self.streams.update(dict.fromkeys(added))
        return Outcome(_result(None, request_id), added=added)

    def _unsubscribe(self, params: list[Any], request_id: object) -> Outcome:
        removed = tuple(name for name in self._names(params) if name in self.streams)
        for name in removed:
            del self.streams[name]
        return Outcome(_result(None, request_id), removed=removed)

    def _list_subscriptions(self, params: list[Any], request_id: object) -> Outcome:
        if params:
            raise RequestError(2, "Invalid request: too many parameters")
        return Outcome(_result(list(self.streams), request_id))

    def _property(self, params: list[Any], count: int, request_id: object) -> None:
        if not params or not isinstance(params[0], str):
            raise RequestError(2, "Invalid request: property name must be a string")
        if len(params) > count:
            raise RequestError(2, "Invalid request: too many parameters")
        if params[0] != "combined":
            raise RequestError(0, "Unknown property", request_id)

    def _set_property(self, params: list[Any], request_id: object) -> Outcome:
        self._property(params, 2, request_id)
        if len(params) < 2 or not isinstance(params[1], bool):
            raise RequestError(1, "Invalid value type: expected Boolean")
        self.combined = params[1]
        return Outcome(_result(None, request_id))

    def _get_property(self, params: list[Any], request_id: object) -> Outcome:
        self._property(params, 1, request_id)
        return Outcome(_result(self.combined, request_id))


def _result(value: object, request_id: object) -> bytes:
    return msgspec.json.encode({"result": value, "id": request_id})


def streams_of(path: str) -> list[str]:
    """Return the distinct stream names in ``a/b/c``."""
    return list(dict.fromkeys(name for name in path.split("/") if name))
