"""Sanitizing of external text for terminals: control sequences in symbols and responses are removed."""

from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any, Final, TypeVar, cast

from marketfeed_operator.text import printable

T = TypeVar("T")

MAX_TEXT: Final = 4096
"""Maximum number of characters of a text."""


def shown(value: T) -> T:
    """Return `value` with printable texts only, at any depth of mappings, sequences and dataclasses."""
    return cast("T", _shown(value))


def _shown(value: Any) -> Any:
    if isinstance(value, str):
        return printable(value, MAX_TEXT)
    if isinstance(value, Mapping):
        return {_shown(key): _shown(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_shown(each) for each in value)
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{field.name: _shown(getattr(value, field.name)) for field in fields(value)})
    return value


def shown_lines(text: str) -> str:
    """Return a multi-line text with printable lines only."""
    return "\n".join(printable(line, MAX_TEXT) for line in text.splitlines())
