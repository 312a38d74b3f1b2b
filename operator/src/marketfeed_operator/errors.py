"""What the API server may answer, translated once.

ApiError            it refused; carries the HTTP status and its own sentence
├── NotFound        404: the object, or the kind itself; 403 where the namespace is on its way out
├── Conflict        409; 422 where another object has the name by now
├── Invalid         422; 400, 405, 413 (what a webhook or a proxy may say of one object); 500 for a field that the kind
│                   does not have: the object cannot be so; trying again changes nothing
│   └── Immutable   422 of a field that can never change: it could be so, had it been made so
├── Forbidden       403: a right is missing, a quota is full, an admission policy refuses
├── NameConflict    not an answer but what follows from one: the name belongs to an object that the feed has not made
└── Unavailable     429, 5xx, no answer at all; worth another try, after `retry_after_seconds` where it says so
"""

import json
from typing import Any, Final

from kubernetes.aio.client.exceptions import ApiException
from kubernetes.aio.dynamic.exceptions import DynamicApiError


class ApiError(Exception):
    """The API server refused."""

    def __init__(self, status: int, message: str, retry_after_seconds: float | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after_seconds = retry_after_seconds


class NotFound(ApiError):
    """There is no such object, no such kind, or soon no such namespace."""


class Conflict(ApiError):
    """The object has changed meanwhile, or exists already."""


class Invalid(ApiError):
    """The object cannot be so."""


class Immutable(Invalid):
    """The object could be so, but one that is there cannot become so."""


class Forbidden(ApiError):
    """The operator's ServiceAccount may not."""


class NameConflict(ApiError):
    """An object of that name is there, and is not the feed's: nothing of it is changed."""


class Unavailable(ApiError):
    """The API server is overloaded, faulty or out of reach."""


_NO_SUCH_FIELD: Final = "failed to create typed patch object"
"""Begins what the API server says, with status 500 (1.34, tried), to a server-side apply of a field that does not exist
or of a value of another type: it is the user's mistake all the same."""
_NEVER_CHANGES: Final = ("field is immutable", "updates to statefulset spec for fields other than")
_BY_STATUS: Final = {
    400: Invalid, 403: Forbidden, 404: NotFound, 405: Invalid, 409: Conflict, 413: Invalid, 422: Invalid,
    429: Unavailable,
}  # fmt: skip


def translated(error: DynamicApiError | ApiException) -> ApiError:
    """The error as one of ours."""
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
    """What the API server sent as its reason, a Status; nothing where it sent none."""
    try:
        said = json.loads(error.body or "")
    except ValueError:
        return {}
    return said if isinstance(said, dict) else {}
