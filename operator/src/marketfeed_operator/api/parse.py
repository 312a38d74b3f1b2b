"""From what the API server holds to a `Spec`, or to the list of what is wrong with it."""

import json
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from marketfeed_operator.api.spec import Spec

MAX_PROBLEMS = 20
"""Problems told at once; a status has bounds."""


def parse(spec: Mapping[str, Any]) -> Spec | list[str]:
    """The spec, or one line a problem: the field's path, the value, what is allowed.

    The API server has checked most of this; what it lets through (an older CRD, a rule switched off) ends here and
    becomes a condition, never a traceback.
    """
    try:
        # By way of JSON, whose lists and numbers strict types take for what they are.
        return Spec.model_validate_json(json.dumps(dict(spec)))
    except ValidationError as error:
        problems = [_problem(dict(found)) for found in error.errors(include_url=False, include_context=False)]
        more = len(problems) - MAX_PROBLEMS
        return problems[:MAX_PROBLEMS] + ([f"and {more} more"] if more > 0 else [])


def _problem(found: dict[str, Any]) -> str:
    path = "spec" + "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in found["loc"])
    message = str(found["msg"]).removeprefix("Value error, ")
    if found["type"] == "missing":
        return f"{path} is not set"
    if found["type"] == "extra_forbidden":
        return f"{path} is no field of a MarketFeed"
    if found["type"] == "value_error":
        return f"{path}: {message}"
    return f"{path}={found['input']!r:.80}: {message[:1].lower()}{message[1:]}"
