"""Truncate deeply nested JSON of the API server before it is decoded.

The author of an object chooses its depth, up to some thousand levels: in the free-form parts of custom resources
(`spec.config` of a KafkaTopic), and in the `managedFields` of every kind. No Python decoder survives that, and a list
or watch with one such object would be lost for all feeds.
"""

import itertools
import json
import re
from typing import Any, Final

MAX_DEPTH: Final = 100
"""More than twice the depth of a pod template's affinity in the `managedFields` of a list."""
_STRING: Final = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_TOKEN: Final = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"|[\[\]{}]', re.DOTALL)
_BESIDE_BRACKETS: Final = bytes(set(range(256)) - set(b"[]{}"))
_STEP: Final = {ord("["): 1, ord("{"): 1, ord("]"): -1, ord("}"): -1}


def depth_of(text: bytes) -> int:
    """Return the nesting depth of a JSON text."""
    brackets = _STRING.sub(b"", text).translate(None, _BESIDE_BRACKETS)
    return max(itertools.accumulate(map(_STEP.__getitem__, brackets)), default=0)


def shallow(text: bytes) -> bytes:
    """Return a JSON text with null in place of values nested deeper than `MAX_DEPTH`."""
    if text.count(b"[") + text.count(b"{") <= MAX_DEPTH or depth_of(text) <= MAX_DEPTH:
        return text
    kept, depth, start = [], 0, 0
    for token in _TOKEN.finditer(text):
        step = _STEP.get(text[token.start()], 0)
        depth += step
        if step == 1 and depth == MAX_DEPTH + 1:
            kept.append(text[start : token.start()])
        elif step == -1 and depth == MAX_DEPTH:
            kept.append(b"null")
            start = token.end()
    return b"".join(kept) + (text[start:] if depth <= MAX_DEPTH else b"")


def loads(text: bytes | str) -> Any:
    """Decode a JSON text of the API server.

    Raises:
        ValueError: it is not valid JSON.
    """
    return json.loads(shallow(text.encode() if isinstance(text, str) else text))
