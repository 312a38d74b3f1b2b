"""A page of a list: read within a bound, and taken apart one object at a time.

An object of 1 MiB takes some 30 MiB once it is decoded, if its author wants that. So no page is ever decoded whole: its
objects are, one after the other, and of each only what is made of it stays.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

import aiohttp
import msgspec

from marketfeed_operator import nesting

MAX_PAGE_BYTES: Final = 4 * 1024 * 1024
MAX_OBJECT_BYTES: Final = 32 * 1024 * 1024
"""Well above what an object can have: a request has 3 MiB at most, and escapes make six of one byte."""
LARGE_BYTES: Final = 64 * 1024
"""Above it a text is decoded in a thread."""
CHUNK_BYTES: Final = 64 * 1024

Object = dict[str, Any]
T = TypeVar("T")


class _ListMetadata(msgspec.Struct):
    resource_version: str | None = msgspec.field(name="resourceVersion", default=None)
    proceed: str | None = msgspec.field(name="continue", default=None)


class _List(msgspec.Struct):
    metadata: _ListMetadata
    items: list[msgspec.Raw] | None = None
    kind: str = ""
    api_version: str = msgspec.field(name="apiVersion", default="")


_decoder: Final = msgspec.json.Decoder(_List)


@dataclass(frozen=True)
class Page(Generic[T]):
    """A page of a list.

    Attributes:
        items: what was made of its objects.
        proceed: where the next page begins; None when there is none.
        limit: most objects that it could have.
        size: its bytes.
        head: the list without its objects.
    """

    items: list[T]
    proceed: str | None
    limit: int
    size: int
    head: Object


def taken(text: bytes, take: Callable[[Object], T], limit: int) -> Page[T]:
    """The page in the JSON of a list, of each object what `take` makes of it.

    Raises:
        ValueError: it is no JSON of a list.
    """
    try:
        found = _decoder.decode(nesting.shallow(text))
    except msgspec.MsgspecError as error:
        raise ValueError(f"no list: {error}") from error
    head = {
        "kind": found.kind,
        "apiVersion": found.api_version,
        "metadata": {
            "resourceVersion": found.metadata.resource_version,
            "continue": found.metadata.proceed or "",
        },
    }
    items = [take(nesting.loads(bytes(item))) for item in found.items or []]
    return Page(items, found.metadata.proceed or None, limit, len(text), head)


_decoding: Final = ThreadPoolExecutor(1, thread_name_prefix="decoding")
"""One for all, so that no two large objects are decoded at the same time."""


async def decoded(decode: Callable[[], T]) -> T:
    """What `decode` returns, which may take long or much memory: in a thread, one after the other."""
    return await asyncio.get_running_loop().run_in_executor(_decoding, decode)


async def read_at_most(response: aiohttp.ClientResponse, max_bytes: int) -> bytes | None:
    """The body of a response; None when it has more than `max_bytes`, and is not read to its end."""
    pieces, size = [], 0
    async for piece in response.content.iter_chunked(CHUNK_BYTES):
        size += len(piece)
        if size > max_bytes:
            response.close()
            return None
        pieces.append(piece)
    return b"".join(pieces)
