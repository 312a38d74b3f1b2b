"""Errors of the API server, translated in one place.

ApiError            refusal; has the HTTP status and the server's message
├── NotFound        404: the object or its kind does not exist; 403 where the namespace is being deleted
├── Conflict        409; 422 where another object has the name by now
├── Invalid         422; 400, 405, 413 (also from webhooks and proxies); 500 for a field that the kind does not have:
│                   the object is invalid, a retry is useless
│   └── Immutable   422 for an immutable field: valid for a new object
├── Forbidden       403: missing permission, exceeded quota, or an admission policy
├── NameConflict    not a response: the name belongs to an object that the feed did not create
└── Unavailable     429, 5xx, no response: retried, after `retry_after_seconds` if given
"""

import json
from typing import Any, Final

from kubernetes.aio.client.exceptions import ApiException
from kubernetes.aio.dynamic.exceptions import DynamicApiError


class ApiError(Exception):
    """Refusal of the API server.

    Args:
        status: HTTP status; 0 without a response.
        message: message of the server.
        retry_after_seconds: delay that the server requested; None without one.
    """

    def __init__(self, status: int, message: str, retry_after_seconds: float | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after_seconds = retry_after_seconds


class NotFound(ApiError):
    """The object or its kind does not exist, or its namespace is being deleted."""


class Conflict(ApiError):
    """The object has changed since it was read, or exists already."""


class Invalid(ApiError):
    """The object is invalid."""


class Immutable(Invalid):
    """The change of an existing object is invalid; a new object with it would be valid."""


class Forbidden(ApiError):
    """The operator's ServiceAccount lacks a permission."""


class NameConflict(ApiError):
    """An object of that name exists and does not belong to the feed; it is not changed."""


class Unavailable(ApiError):
    """The API server is overloaded, faulty or unreachable."""


_NO_SUCH_FIELD: Final = "failed to create typed patch object"
"""Prefix of the API server's message, with status 500 (observed with 1.34), for a server-side apply with an unknown
field or a value of the wrong type: an error in the object all the same."""
_NEVER_CHANGES: Final = ("field is immutable", "updates to statefulset spec for fields other than")
_BY_STATUS: Final = {
    400: Invalid, 403: Forbidden, 404: NotFound, 405: Invalid, 409: Conflict, 413: Invalid, 422: Invalid,
    429: Unavailable,
}  # fmt: skip


def translated(error: DynamicApiError | ApiException) -> ApiError:
    """Translate an error of the client library."""
    status = int(error.status or 0)
    kind = _BY_STATUS.get(status, Unavailable if status >= 500 else ApiError)
    after, said = (error.headers or {}).get("Retry-After", ""), _status(error)
    sentence = f"{said.get('message') or error.reason or 'no reason given'}"[:500]
    if sentence.startswith(_NO_SUCH_FIELD):
        kind = Invalid
    causes = (said.get("details") or {}).get("causes") or []
    if status == 422 and any(
        says in f"{cause.get('message')}" for cause in causes for says in _NEVER_CHANGES
    ):
        kind = Immutable
    if any(cause.get("reason") == "NamespaceTerminating" for cause in causes):
        kind = NotFound
    if any(cause.get("field") == "metadata.uid" for cause in causes):
        kind = Conflict
    return kind(status, sentence, float(after) if after.isascii() and after.isdecimal() else None)


def _status(error: DynamicApiError | ApiException) -> dict[str, Any]:
    """Return the Status object of a response; empty without one."""
    try:
        said = json.loads(error.body or "")
    except ValueError:
        return {}
    return said if isinstance(said, dict) else {}
