"""The assignment file: the symbols of one shard and its share of the venue's rate limits.

The operator writes it and the worker watches it. It is mounted into a shard's pods and changes while they run. A worker
subscribes to added symbols and unsubscribes removed ones, then reports the file's hash as `WorkerStatus.assignment`.
That hash confirms that the venue has acknowledged the subscription of each symbol of the file, or that the symbol is
listed in `refused_symbols`. The operator removes a symbol from its old shard only after the new shard reports the hash.
"""

import hashlib
from collections.abc import Iterable
from typing import Annotated, Final

import msgspec

from marketfeed_wire.codec import INVALID_MESSAGE_ERRORS, DecodeError, is_name

FILE_NAME: Final = "assignment.json"
"""Name of the file in the mounted folder, and its key in the ConfigMap."""

MAX_SYMBOLS: Final = 5_000

Symbol = Annotated[str, msgspec.Meta(min_length=1, max_length=64)]


class Assignment(msgspec.Struct, frozen=True):
    """The symbols of one shard, sorted and unique; build it with `assignment_of`."""

    symbols: Annotated[tuple[Symbol, ...], msgspec.Meta(max_length=MAX_SYMBOLS)]
    hash: str
    """`hash_of` the symbols: detects a file that was truncated or edited by hand."""
    budget_share: Annotated[int, msgspec.Meta(ge=1)] | None = None
    """Number of workers that share the venue's limits for one IP address; None: the worker's own setting applies.

    Not part of the hash, which covers symbols only.
    """


_decoder: Final = msgspec.json.Decoder(Assignment)


def hash_of(symbols: Iterable[str]) -> str:
    """Return 16 hexadecimal digits that identify this set of symbols, independent of their order."""
    # No symbol contains a line feed, so two different sets never give the same text.
    return hashlib.sha256("\n".join(sorted(set(symbols))).encode()).hexdigest()[:16]


def assignment_of(symbols: Iterable[str], budget_share: int | None = None) -> Assignment:
    """Return the assignment of these symbols, sorted and without duplicates."""
    ordered = tuple(sorted(set(symbols)))
    return Assignment(ordered, hash_of(ordered), budget_share)


def encode_assignment(assignment: Assignment) -> bytes:
    """Return the file's content: JSON, ending in a line feed."""
    return msgspec.json.encode(assignment) + b"\n"


def decode_assignment(content: bytes) -> Assignment:
    """Return the assignment in a file's content.

    Raises:
        DecodeError: the content is not an assignment, a symbol is invalid or listed twice, or the hash does not match.
    """
    try:
        found = _decoder.decode(content)
    except INVALID_MESSAGE_ERRORS as error:
        raise DecodeError("", str(error)) from None
    wrong = [symbol for symbol in found.symbols if not is_name(symbol)]
    if wrong:
        raise DecodeError("symbols", f"not a symbol: {wrong[0]!r}")
    if len(set(found.symbols)) != len(found.symbols):
        raise DecodeError("symbols", "a symbol is listed twice")
    if found.hash != hash_of(found.symbols):
        raise DecodeError(
            "hash", f"{found.hash!r} is not the hash of the symbols, {hash_of(found.symbols)!r}"
        )
    return found
