"""Objects that are nested too deep to be decoded are cut; all others are left as they are, byte for byte."""

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
    """The JSON of a value within as many lists and objects as `steps` has letters."""
    before = "".join("[1," if step == "l" else '{"}":0,"a":' for step in steps)
    after = "".join(",2]" if step == "l" else ',"]":[]}' for step in reversed(steps))
    return before + json.dumps(value) + after


def depth(value: Any) -> int:
    if isinstance(value, dict):
        return 1 + max(map(depth, value.values()), default=0)
    return 1 + max(map(depth, value), default=0) if isinstance(value, list) else 0


@given(VALUES, some.booleans())
def test_depth_is_that_of_lists_and_objects_whatever_stands_in_texts(value, ascii_only):
    text = json.dumps(value, ensure_ascii=ascii_only, indent=2).encode(errors="surrogatepass")
    assert depth_of(text) == depth(value)
    assert shallow(text) is text


@given(VALUES, some.text("lo", min_size=MAX_DEPTH - 20, max_size=MAX_DEPTH + 60))
def test_what_is_too_deep_becomes_null_and_the_rest_stays(value, steps):
    text = wrapped(value, steps).encode()
    found = loads(text)
    assert depth(found) <= MAX_DEPTH
    expected = json.loads(text)
    if depth(expected) <= MAX_DEPTH:
        assert found == expected
        return
    for step in steps[:MAX_DEPTH]:
        if step == "l":
            assert (found[0], found[2]) == (1, 2)
        else:
            assert (found["}"], list(found)) == (0, ["}", "a", "]"])
        found, expected = (each[1] if step == "l" else each["a"] for each in (found, expected))
    assert found in (None, expected), "cut at the bound, and nowhere before"


@pytest.mark.parametrize("step", ["l", "o", "lo"])
@pytest.mark.parametrize("levels", [1_100, 100_000])
def test_no_depth_is_too_much(step, levels):
    beside = {"metadata": {"name": "a", "labels": {"b": "c"}}}
    text = f'{{"items":[{json.dumps(beside)},{wrapped(1, step * levels)},{json.dumps(beside)}]}}'
    items = loads(text)["items"]
    assert (items[0], items[2]) == (beside, beside)


@pytest.mark.parametrize("text", [b"[" * 5_000, b'{"a":' * 5_000, b"]" * 5_000, b'"' + b"[" * 5_000, b""])
def test_what_is_no_json_is_refused_as_such(text):
    with pytest.raises(ValueError, match=r"Expecting|Unterminated|Extra data|delimiter"):
        loads(text)
