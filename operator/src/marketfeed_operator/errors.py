"""What the API server may answer, translated once.

ApiError            it refused; carries the HTTP status and its own sentence
├── NotFound        404: the object, or the kind itself
├── Conflict        409
├── Invalid         422: the object cannot be so; trying again changes nothing
├── Forbidden       403: a right is missing
└── Unavailable     429, 5xx, no answer at all; worth another try, after `retry_after_seconds` where it says so
"""

import json

from kubernetes.aio.client.exceptions import ApiException
from kubernetes.aio.dynamic.exceptions import DynamicApiError


class ApiError(Exception):
    """The API server refused."""

    def __init__(self, status: int, message: str, retry_after_seconds: float | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after_seconds = retry_after_seconds


class NotFound(ApiError):
    """There is no such object, or no such kind."""


class Conflict(ApiError):
    """The object has changed meanwhile, or exists already."""


class Invalid(ApiError):
    """The object cannot be so."""


class Forbidden(ApiError):
    """The operator's ServiceAccount may not."""


class Unavailable(ApiError):
    """The API server is overloaded, faulty or out of reach."""


_BY_STATUS = {403: Forbidden, 404: NotFound, 409: Conflict, 422: Invalid, 429: Unavailable}


def translated(error: DynamicApiError | ApiException) -> ApiError:
    """The error as one of ours."""
    status = int(error.status or 0)
    kind = _BY_STATUS.get(status, Unavailable if status >= 500 else ApiError)
    after = (error.headers or {}).get("Retry-After", "")
    return kind(status, _sentence(error), float(after) if after.isdigit() else None)


def _sentence(error: DynamicApiError | ApiException) -> str:
    try:
        said = json.loads(error.body or "")
    except ValueError:
        said = None
    message = said.get("message") if isinstance(said, dict) else None
    return f"{message or error.reason or 'no reason given'}"[:500]
