"""Translation of the API server's errors."""

import json
from typing import Any

import pytest
from kubernetes.aio.client.exceptions import ApiException

from marketfeed_operator.errors import (
    ApiError,
    Conflict,
    Forbidden,
    Immutable,
    Invalid,
    NotFound,
    Unavailable,
    translated,
)


def answer(status: int, message: str, *causes: dict[str, str]) -> ApiError:
    error = ApiException(status=status)
    details: dict[str, Any] = {"causes": list(causes)}
    error.body = json.dumps({"kind": "Status", "message": message, "details": details})
    return translated(error)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, Invalid), (403, Forbidden), (404, NotFound), (405, Invalid), (409, Conflict), (413, Invalid),
        (422, Invalid), (429, Unavailable), (500, Unavailable), (503, Unavailable),
    ],
)  # fmt: skip
def test_errors_of_webhooks_with_any_status(status, kind):
    error = answer(status, 'admission webhook "policy.example.com" denied the request: no')
    assert type(error) is kind
    assert "denied the request" in f"{error}"


@pytest.mark.parametrize(
    ("message", "kind"),
    [
        ("Invalid value: {...}: field is immutable", Immutable),
        ("Forbidden: updates to statefulset spec for fields other than 'replicas' are forbidden", Immutable),
        ("Required value", Invalid),
    ],
)
def test_errors_are_immutable_only_for_immutable_fields(message, kind):
    assert type(answer(422, "refused", {"field": "spec", "message": message})) is kind
    # The message of a policy is not evaluated: deleting the workload would not help.
    assert type(answer(422, f"denied: {message}", {"message": "denied"})) is Invalid
