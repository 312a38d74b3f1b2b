"""Settings: read once from the environment into a frozen, typed object; secrets are never printed.

A service declares a subclass of `Settings` with one field per variable: the variable is the field's name in capitals,
the text of ``--help`` its description. Secrets are `SecretStr`.
"""

import argparse
import re
import shutil
import textwrap
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, ClassVar, Final, TypeVar

from pydantic import BeforeValidator, Field, ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, EnvSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict

from marketfeed_service import logs, process
from marketfeed_service.errors import SettingsError

S = TypeVar("S", bound="Settings")

log = logs.get(__name__)

MAX_DRAIN_SECONDS: Final = 120
"""Maximum of DRAIN_DEADLINE_SECONDS. In a rebalance a consumer may take that long to drain its batches, and as long
again to acquire leases: the sum must be below max.poll.interval.ms, and each below the time until /livez fails."""

_CREDENTIALS = re.compile(r"//[^/\s]*@")
"""Credentials in a URL, which may be the value of a variable that is not a secret."""


def _split(value: object) -> object:
    if not isinstance(value, str):
        return value
    return tuple(part for part in (piece.strip() for piece in value.split(",")) if part)


CommaSeparated = Annotated[tuple[str, ...], BeforeValidator(_split)]
"""A list in one variable: ``A,B,C``; spaces and empty parts are ignored."""


_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def parse_time_us(text: str) -> int:
    """Parse an ISO 8601 date or time, UTC unless it has a zone, into microseconds since the epoch.

    Raises:
        ValueError: the text is not such a time.
    """
    moment = datetime.fromisoformat(text)
    return ((moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - _EPOCH) // timedelta(microseconds=1)


class Settings(BaseSettings):
    """Base class of every service's settings; see `read`."""

    model_config = SettingsConfigDict(
        frozen=True,
        hide_input_in_errors=True,
        allow_inf_nan=False,
        # A list is comma-separated, not JSON.
        enable_decoding=False,
    )

    renamed: ClassVar[Mapping[str, str]] = {}
    """Variable of the version before this one -> the variable that replaces it; the old one is read for one version."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Take values from `read` only: a test or a parent process passes an environment of its own."""
        del settings_cls, env_settings, dotenv_settings, file_secret_settings
        return (init_settings,)


class CommandSettings(Settings):
    """The variables of every command, including short-lived ones."""

    log_level: str = Field(
        "INFO", pattern="^(DEBUG|INFO|WARNING|ERROR)$", description="DEBUG, INFO, WARNING or ERROR"
    )
    log_format: str = Field(
        "text", pattern="^(text|json)$", description="text, or json for one object a line"
    )
    start_deadline_seconds: float = Field(
        60, gt=0, le=3600, description="how long to wait at start for a dependency that is not reachable yet"
    )


class ServiceSettings(CommandSettings):
    """The variables of every long-running service."""

    metrics_host: str = Field(
        "::", description="listening address of /metrics and the probes; :: is every IPv4 and IPv6 address"
    )
    metrics_port: int = Field(
        8000, ge=0, le=65535, description="port of /metrics, /livez, /readyz, /status; 0 selects a free port"
    )
    metrics_port_file: str = Field("", description="file that the selected port is written to")
    drain_deadline_seconds: float = Field(
        20,
        gt=0,
        le=MAX_DRAIN_SECONDS,
        description="how long a stop, or a consumer in a rebalance, may take to deliver what was read; a rebalance "
        "takes up to twice as long, and Kafka waits five minutes for it",
    )


def read(settings: type[S], environment: Mapping[str, str]) -> S:
    """Read the settings from `environment`; white space around values is removed, an empty value counts as not set.

    Raises:
        SettingsError: one line for each variable that is missing or invalid.
    """
    renamed = old_names(settings, environment)
    source = EnvSettingsSource(settings)
    source.env_vars = {
        name.lower(): value.strip()
        for name, value in (*environment.items(), *((new, environment[old]) for old, new in renamed.items()))
        if name == name.upper() and value.strip()
    }
    given = source()
    try:
        return settings(**given)
    except ValidationError as error:
        lines = [_problem(settings, dict(problem), given) for problem in error.errors(include_url=False)]
        for old, new in renamed.items():
            lines = [line.replace(f"{new}=", f"{old} (renamed {new})=", 1) for line in lines]
        raise SettingsError("\n".join(lines)) from None


def old_names(settings: type[Settings], environment: Mapping[str, str]) -> dict[str, str]:
    """Return those of `Settings.renamed` that are read from `environment`: set, and the new variable is not."""
    return {
        old: new
        for old, new in settings.renamed.items()
        if environment.get(old, "").strip() and not environment.get(new, "").strip()
    }


def log_old_names(settings: type[Settings], environment: Mapping[str, str]) -> None:
    """Log a warning for each variable that is read under its old name, which the next version ignores."""
    for old, new in old_names(settings, environment).items():
        log.warning("setting renamed", old=old, new=new)


def _problem(settings: type[Settings], problem: dict[str, Any], given: Mapping[str, str]) -> str:
    location = problem["loc"]
    if not location:  # a rule over several fields, whose text names them
        return str(problem["msg"]).removeprefix("Value error, ")
    name = str(location[0])
    field = settings.model_fields[name]
    allowed = field.description or ""
    if problem["type"] == "missing":
        return f"{name.upper()} is not set: {allowed}"
    shown = "(hidden)" if is_secret(field) else repr(_CREDENTIALS.sub("//(hidden)@", given.get(name, "")))
    if problem["type"] == "string_pattern_mismatch":  # the description explains the pattern
        return f"{name.upper()}={shown} cannot be used. Allowed: {allowed}"
    reason = str(problem["msg"]).removeprefix("Value error, ")
    return f"{name.upper()}={shown} cannot be used: {reason}. Allowed: {allowed}"


def is_secret(field: FieldInfo) -> bool:
    """Return whether a field's value must never be shown."""
    return "SecretStr" in str(field.annotation)


def describe(settings: type[Settings]) -> list[tuple[str, str, str]]:
    """Return (variable, default, description) of each setting, in declared order."""
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
    """Return an argument parser whose ``--help`` lists the environment variables of `settings`.

    Args:
        program: name of the command.
        description: text of the help.
        settings: the class of the settings.
    """
    process.escape_unprintable()  # the help contains non-ASCII characters
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
