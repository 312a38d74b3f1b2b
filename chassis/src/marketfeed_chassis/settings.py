"""Settings: read once from the environment into a frozen, typed object; secrets never printed.

A service declares a subclass of `Settings`, one field a variable: the field's name in capitals is the
variable's name, its description is the text of ``--help``. Secrets are `SecretStr`.
"""

import argparse
import re
import shutil
import textwrap
from collections.abc import Mapping
from typing import Annotated, Any, Final, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic.fields import FieldInfo

from marketfeed_chassis import process
from marketfeed_chassis.errors import SettingsError

S = TypeVar("S", bound="Settings")

MOST_DRAIN_SECONDS: Final = 120
"""A consumer whose partitions change stores for so long what it has read, and takes as long again to claim new ones:
together that must stay below the max.poll.interval.ms within which Kafka waits for it, and each below what its /livez
takes for a loop that is stuck."""

_CREDENTIALS = re.compile(r"//[^/\s]*@")
"""Of an address, which may stand in a variable that is not taken for a secret."""


def _split(value: object) -> object:
    if not isinstance(value, str):
        return value
    return tuple(part for part in (piece.strip() for piece in value.split(",")) if part)


CommaSeparated = Annotated[tuple[str, ...], BeforeValidator(_split)]
"""A list in one variable: ``A,B,C``; spaces and empty parts are passed over."""


class Settings(BaseModel):
    """Base of every service's settings."""

    model_config = ConfigDict(frozen=True, hide_input_in_errors=True, allow_inf_nan=False)


class CommandSettings(Settings):
    """The variables that every command of a service takes, also one that ends by itself."""

    log_level: str = Field(
        "INFO", pattern="^(DEBUG|INFO|WARNING|ERROR)$", description="DEBUG, INFO, WARNING or ERROR"
    )
    log_format: str = Field(
        "text", pattern="^(text|json)$", description="text, or json for one object a line"
    )
    start_deadline_seconds: float = Field(
        60, gt=0, le=3600, description="how long to wait at start for what is not reachable yet"
    )


class ServiceSettings(CommandSettings):
    """The variables that every long-running service takes."""

    metrics_host: str = Field(
        "::", description="address that /metrics and the probes listen on; :: is every IPv4 and IPv6 address"
    )
    metrics_port: int = Field(
        8000, ge=0, le=65535, description="port of /metrics, /livez, /readyz, /status; 0 takes a free one"
    )
    metrics_port_file: str = Field("", description="write the port that was taken into this file")
    drain_deadline_seconds: float = Field(
        20,
        gt=0,
        le=MOST_DRAIN_SECONDS,
        description="how long a stop, or a consumer whose partitions change, may take to deliver what was read: Kafka "
        "waits five minutes for that and for the claim of new ones",
    )


def read(settings: type[S], environment: Mapping[str, str]) -> S:
    """The settings in `environment`; white space around a value is dropped, an empty one counts as not set.

    Raises:
        SettingsError: one line for each variable that is missing or wrong.
    """
    given = {
        name: environment[name.upper()].strip()
        for name in settings.model_fields
        if environment.get(name.upper(), "").strip()
    }
    try:
        return settings(**given)
    except ValidationError as error:
        raise SettingsError(
            "\n".join(_problem(settings, dict(problem), given) for problem in error.errors(include_url=False))
        ) from None


def _problem(settings: type[Settings], problem: dict[str, Any], given: Mapping[str, str]) -> str:
    location = problem["loc"]
    if not location:  # a rule over several fields, which names them itself
        return str(problem["msg"]).removeprefix("Value error, ")
    name = str(location[0])
    field = settings.model_fields[name]
    allowed = field.description or ""
    if problem["type"] == "missing":
        return f"{name.upper()} is not set: {allowed}"
    shown = "(hidden)" if is_secret(field) else repr(_CREDENTIALS.sub("//(hidden)@", given.get(name, "")))
    if problem["type"] == "string_pattern_mismatch":  # the pattern in words is the description
        return f"{name.upper()}={shown} cannot be used. Allowed: {allowed}"
    reason = str(problem["msg"]).removeprefix("Value error, ")
    return f"{name.upper()}={shown} cannot be used: {reason}. Allowed: {allowed}"


def is_secret(field: FieldInfo) -> bool:
    """Whether a field's value must never be shown."""
    return "SecretStr" in str(field.annotation)


def describe(settings: type[Settings]) -> list[tuple[str, str, str]]:
    """(variable, default, description) of each setting, in the order declared."""
    return [
        (name.upper(), _default(field), field.description or "")
        for name, field in settings.model_fields.items()
    ]


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "(required)"
    if is_secret(field):
        return ""
    default = field.get_default(call_default_factory=True)
    if isinstance(default, bool):
        return str(default).lower()
    if isinstance(default, tuple):
        return ",".join(default)
    return "" if default is None else f"{default}"


def parser(program: str, description: str, settings: type[Settings]) -> argparse.ArgumentParser:
    """An argument parser whose ``--help`` lists the environment variables of `settings`."""
    process.escape_unprintable()  # the help holds more than ASCII
    rows = describe(settings)
    width = max(len(name) for name, _, _ in rows)
    lines = "\n".join(
        textwrap.fill(
            text + (f" [{default}]" if default else ""),
            width=max(shutil.get_terminal_size().columns - 2, width + 40),
            initial_indent=f"  {name:<{width}}  ",
            subsequent_indent=" " * (width + 4),
            break_on_hyphens=False,
        )
        for name, default, text in rows
    )
    return argparse.ArgumentParser(
        prog=program,
        description=description,
        epilog=f"environment variables [default]:\n{lines}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
