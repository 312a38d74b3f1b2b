"""Objects nested too deep for decoding are truncated; all others are unchanged, byte for byte."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from marketfeed_operator.nesting import MAX_DEPTH, depth_of, loads, shallow

LEAVES = (
    some.none()
    | some.booleans()
    | some.integers()
    | some.text()
    | some.sampled_from(["}", "]]", '\\"{', "\\"])
)
VALUES = some.recursive(
    LEAVES, lambda inner: some.lists(inner, max_size=4) | some.dictionaries(some.text(), inner, max_size=4)
)


def wrapped(value: Any, steps: str) -> str:
    """Return the JSON of a value nested in one list or object per letter of `steps`."""
    before = "".join("[1," if step == "l" else '{"}":0,"a":' for step in steps)
    after = "".join(",2]" if step == "l" else ',"]":[]}' for step in reversed(steps))
    return before + json.dumps(value) + after


def depth(value: Any) -> int:
    if isinstance(value, dict):
        return 1 + max(map(depth, value.values()), default=0)
    return 1 + max(map(depth, value), default=0) if isinstance(value, list) else 0


def cut(value: Any, levels: int) -> Any:
    """Return a value truncated to so many levels of lists and objects, with None below."""
    if isinstance(value, dict):
        return {key: cut(each, levels - 1) for key, each in value.items()} if levels else None
    if isinstance(value, list):
        return [cut(each, levels - 1) for each in value] if levels else None
    return value


@given(VALUES, some.booleans())
def test_nesting_depth_ignores_brackets_in_strings(value, ascii_only):
    text = json.dumps(value, ensure_ascii=ascii_only, indent=2).encode(errors="surrogatepass")
    assert depth_of(text) == depth(value)
    assert shallow(text) is text


@given(VALUES, some.text("lo", min_size=MAX_DEPTH - 20, max_size=MAX_DEPTH + 60))
def test_nesting_below_the_limit_becomes_null(value, steps):
    text = wrapped(value, steps).encode()
    assert loads(text) == cut(json.loads(text), MAX_DEPTH)


@pytest.mark.parametrize("step", ["l", "o", "lo"])
@pytest.mark.parametrize("levels", [1_100, 100_000])
def test_nesting_of_any_depth_is_handled(step, levels):
    beside = {"metadata": {"name": "a", "labels": {"b": "c"}}}
    text = f'{{"items":[{json.dumps(beside)},{wrapped(1, step * levels)},{json.dumps(beside)}]}}'
    items = loads(text)["items"]
    assert (items[0], items[2]) == (beside, beside)


@pytest.mark.parametrize("text", [b"[" * 5_000, b'{"a":' * 5_000, b"]" * 5_000, b'"' + b"[" * 5_000, b""])
def test_nesting_invalid_json_is_refused(text):
    with pytest.raises(ValueError, match=r"Expecting|Unterminated|Extra data|delimiter"):
        loads(text)
