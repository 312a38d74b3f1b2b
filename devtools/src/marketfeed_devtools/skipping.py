"""What a test does when the machine lacks what it needs."""

import os
from typing import NoReturn

import pytest


def skip_or_fail(reason: object) -> NoReturn:
    """Skip and say why; with CI=true in the environment a machine must lack nothing, and it is a failure."""
    if os.environ.get("CI", "").lower() == "true":
        pytest.fail(str(reason))
    pytest.skip(str(reason))
