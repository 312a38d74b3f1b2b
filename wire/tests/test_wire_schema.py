"""The committed JSON Schemas: current, and in agreement with the codec."""

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


def test_the_committed_schemas_are_what_the_types_say() -> None:
    assert {file.name: file.read_text() for file in FOLDER.iterdir()} == schemas(), "run `make generate`"


def test_the_command_writes_the_committed_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["schema", str(tmp_path / "new")])
    main()
    assert {file.name: file.read_text() for file in (tmp_path / "new").iterdir()} == schemas()


def test_a_description_is_the_same_on_every_python() -> None:
    for text in schemas().values():
        lines = json.loads(text)["description"].splitlines()
        assert lines == [line.strip() for line in lines]


@given(message=trades | book_tickers)
def test_each_encoded_message_has_the_fields_and_types_of_its_schema(message: Trade | BookTicker) -> None:
    schema = committed("trade" if isinstance(message, Trade) else "book_ticker")
    record = json.loads(encode(message))
    assert set(schema["required"]) <= set(record) == set(schema["properties"])
    for name, value in record.items():
        assert matches(schema["properties"][name], value), (name, value)


def matches(rule: dict[str, Any], value: object) -> bool:
    """Whether a value keeps a rule of the few kinds that these schemas are made of."""
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
def test_the_schema_and_the_codec_agree_on_what_a_decimal_is(text: str) -> None:
    pattern = committed("trade")["properties"]["price"]["pattern"]
    # A schema's `$` is the end of the text (ECMA 262); Python's also stands before a last newline.
    assert bool(re.search(pattern.replace("$", r"\Z"), text)) == is_decimal(text)
