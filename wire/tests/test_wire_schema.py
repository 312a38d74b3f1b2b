"""The committed JSON Schemas match the types and the codec."""

import json
import re
import sys
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given
from wire_strategies import book_tickers, trades

from marketfeed_wire import BookTicker, Trade, encode, is_decimal
from marketfeed_wire.schema import main, schemas

FOLDER = Path(__file__).parents[1] / "schemas"


def committed(name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((FOLDER / f"{name}.v1.schema.json").read_text())
    return content


def test_schemas_committed_match_the_types() -> None:
    assert {file.name: file.read_text() for file in FOLDER.iterdir()} == schemas(), "run `make generate`"


def test_schemas_command_writes_the_committed_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["schema", str(tmp_path / "new")])
    main()
    assert {file.name: file.read_text() for file in (tmp_path / "new").iterdir()} == schemas()


def test_schemas_descriptions_are_the_same_on_every_python() -> None:
    for text in schemas().values():
        lines = json.loads(text)["description"].splitlines()
        assert lines == [line.strip() for line in lines]


@given(message=trades | book_tickers)
def test_schemas_match_each_encoded_message(message: Trade | BookTicker) -> None:
    schema = committed("trade" if isinstance(message, Trade) else "book_ticker")
    record = json.loads(encode(message))
    assert set(schema["required"]) <= set(record) == set(schema["properties"])
    for name, value in record.items():
        assert matches(schema["properties"][name], value), (name, value)


def matches(rule: dict[str, Any], value: object) -> bool:
    """Return whether a value matches a rule, of those that these schemas use."""
    if "anyOf" in rule:
        return any(matches(one, value) for one in rule["anyOf"])
    if "enum" in rule:
        return value in rule["enum"]
    match rule["type"]:
        case "null":
            return value is None
        case "boolean":
            return isinstance(value, bool)
        case "integer":
            return isinstance(value, int) and rule["minimum"] <= value <= rule["maximum"]
        case "string":
            length = rule["minLength"] <= len(str(value)) <= rule["maxLength"]
            return isinstance(value, str) and length and bool(re.search(rule.get("pattern", ""), value))
    return False


@given(st.text(min_size=1, max_size=64) | st.text("0123456789.-e\u0661", min_size=1, max_size=64))
def test_schemas_and_codec_accept_the_same_decimals(text: str) -> None:
    pattern = committed("trade")["properties"]["price"]["pattern"]
    # A schema's `$` matches at the end of the text (ECMA 262); Python's also before a trailing newline.
    assert bool(re.search(pattern.replace("$", r"\Z"), text)) == is_decimal(text)
