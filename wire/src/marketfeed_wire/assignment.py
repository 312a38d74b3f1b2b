"""The assignment file: what one shard reads, and its part of the venue's budgets.

Written by the operator and watched by the worker. It is mounted into a shard's pods and changes while they run. A
worker subscribes to what came and lets go of what went, and then reports the file's hash as `WorkerStatus.assignment`.
That hash is a promise: each symbol of the file is subscribed and the venue has said so (or is listed in
`refused_symbols`). The operator takes a symbol out of its old shard only when the new one has made that promise.
"""

import hashlib
from collections.abc import Iterable
from typing import Annotated, Final

import msgspec

from marketfeed_wire.codec import UNREADABLE, DecodeError, is_name

FILE_NAME: Final = "assignment.json"
"""The file's name in the folder that is mounted, and its key in the ConfigMap."""

MAX_SYMBOLS: Final = 5_000

Symbol = Annotated[str, msgspec.Meta(min_length=1, max_length=64)]


class Assignment(msgspec.Struct, frozen=True):
    """The symbols of one shard, in order, each once; build it with `assignment_of`."""

    symbols: Annotated[tuple[Symbol, ...], msgspec.Meta(max_length=MAX_SYMBOLS)]
    hash: str
    """`hash_of` the symbols: lets a reader see a file that was cut short or edited by hand."""
    budget_share: Annotated[int, msgspec.Meta(ge=1)] | None = None
    """How many workers share the venue's budgets for one address; None: the worker's settings say so.

    Not part of the hash, which is a promise about symbols.
    """


_decoder: Final = msgspec.json.Decoder(Assignment)


def hash_of(symbols: Iterable[str]) -> str:
    """Sixteen hexadecimal digits that name this set of symbols, whatever their order."""
    # A line feed is no part of a name, so two sets never give the same text.
    return hashlib.sha256("\n".join(sorted(set(symbols))).encode()).hexdigest()[:16]


def assignment_of(symbols: Iterable[str], budget_share: int | None = None) -> Assignment:
    """The assignment of these symbols, sorted and each once."""
    ordered = tuple(sorted(set(symbols)))
    return Assignment(ordered, hash_of(ordered), budget_share)


def encode_assignment(assignment: Assignment) -> bytes:
    """The file's content: JSON, ending in a line feed."""
    return msgspec.json.encode(assignment) + b"\n"


def decode_assignment(content: bytes) -> Assignment:
    """The assignment in a file's content.

    Raises:
        DecodeError: it is no assignment, a symbol is none or named twice, or the hash is not that of the symbols.
    """
    try:
        found = _decoder.decode(content)
    except UNREADABLE as error:
        raise DecodeError("", str(error)) from None
    wrong = [symbol for symbol in found.symbols if not is_name(symbol)]
    if wrong:
        raise DecodeError("symbols", f"not a symbol: {wrong[0]!r}")
    if len(set(found.symbols)) != len(found.symbols):
        raise DecodeError("symbols", "a symbol is named twice")
    if found.hash != hash_of(found.symbols):
        raise DecodeError(
            "hash", f"{found.hash!r} is not the hash of the symbols, {hash_of(found.symbols)!r}"
        )
    return found
