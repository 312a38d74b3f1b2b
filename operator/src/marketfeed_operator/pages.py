"""Pages of a list: read with a size limit, and decoded one object at a time.

An object of 1 MiB can take about 30 MiB when decoded. So no page is decoded as a whole: its objects are, one after
the other, and only the result of `take` is kept.
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
"""Well above the size of any object: a request has at most 3 MiB, and escaping makes up to six bytes of one."""
LARGE_BYTES: Final = 64 * 1024
"""Size above which a text is decoded in a thread."""
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
    """Page of a list.

    Attributes:
        items: what `take` returned for each object.
        proceed: continue token of the next page; None for the last.
        limit: requested maximum number of objects.
        size: size in bytes.
        head: the list without its objects.
    """

    items: list[T]
    proceed: str | None
    limit: int
    size: int
    head: Object


def taken(text: bytes, take: Callable[[Object], T], limit: int) -> Page[T]:
    """Parse a page of a list; each object is replaced by what `take` returns.

    Args:
        text: JSON of the list.
        take: called with each decoded object.
        limit: requested maximum number of objects.

    Raises:
        ValueError: it is not the JSON of a list.
    """
    try:
        found = _decoder.decode(nesting.shallow(text))
    except msgspec.MsgspecError as error:
        raise ValueError(f"not a list: {error}") from error
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
"""Global, so that no two large objects are decoded at the same time."""


async def decode_body(decode: Callable[[], T]) -> T:
    """Run `decode`, which may take much time or memory, in a thread, one at a time."""
    return await asyncio.get_running_loop().run_in_executor(_decoding, decode)


async def read_at_most(response: aiohttp.ClientResponse, max_bytes: int) -> bytes | None:
    """Return the body of a response; None when it is larger than `max_bytes`, in which case it is not read to the
    end.
    """
    pieces, size = [], 0
    async for piece in response.content.iter_chunked(CHUNK_BYTES):
        size += len(piece)
        if size > max_bytes:
            response.close()
            return None
        pieces.append(piece)
    return b"".join(pieces)
