"""Parse the spec of a stored object into a `Spec`, or into a list of problems."""

import json
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from marketfeed_operator.api.spec import Spec

MAX_PROBLEMS = 20
"""Problems reported at once; the status is bounded."""


def parse(spec: Mapping[str, Any]) -> Spec | list[str]:
    """Parse a spec. Return it, or one line per problem: the field's path, the value, what is allowed.

    The API server has validated most of this. What it let through (an older CRD, a rule removed since)
    becomes
    a condition here, never a traceback.
    """
    try:
        # Validated as JSON: strict types accept its lists and numbers.
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
        return f"{path} is not a field of a MarketFeed"
    if found["type"] == "value_error":
        return f"{path}: {message}"
    return f"{path}={found['input']!r:.80}: {message[:1].lower()}{message[1:]}"
