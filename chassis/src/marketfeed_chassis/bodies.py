"""Bodies of HTTP responses, bounded: a server that we ask decides neither our memory nor how long our loop stands.

aiohttp decompresses piece by piece while a body is read, so a bound on what was read is one after decompression; what
came over the wire is bounded besides, because an empty deflate block costs bytes and yields none.
"""

import asyncio
from collections.abc import Callable
from typing import TypeVar

import aiohttp

T = TypeVar("T")


class BadBody(ValueError):
    """A body is larger than it may be, is cut short, or is not what it should be."""


async def read(response: aiohttp.ClientResponse, max_bytes: int) -> bytes:
    """Return the whole body.

    Raises:
        BadBody: it is larger than `max_bytes`, on the wire or decompressed, or cannot be decompressed.
        aiohttp.ClientError, TimeoutError, OSError: the connection failed.
    """
    body = bytearray()
    try:
        while piece := await response.content.readany():
            body += piece
            if len(body) > max_bytes or (response.content.total_compressed_bytes or 0) > max_bytes:
                raise BadBody(f"the response is larger than {max_bytes:,} bytes")
    except aiohttp.ClientPayloadError as error:
        raise BadBody(f"the response cannot be read: {error}") from error
    return bytes(body)


async def decoded(response: aiohttp.ClientResponse, decode: Callable[[bytes], T], *, max_bytes: int) -> T:
    """Return what `decode` makes of the body, in a thread: a large body must not hold up the loop.

    Raises:
        BadBody: the body is too large, or `decode` cannot make anything of it.
        aiohttp.ClientError, TimeoutError, OSError: the connection failed.
    """
    return await asyncio.to_thread(interpreted, await read(response, max_bytes), decode)


def interpreted(body: bytes, decode: Callable[[bytes], T]) -> T:
    """Return what `decode` makes of `body`.

    Raises:
        BadBody: `decode` raised what decoders raise: ValueError (JSON, UTF-8, numbers, times), TypeError, LookupError,
            RecursionError for deep nesting, OverflowError, MemoryError.
    """
    try:
        return decode(body)
    except BadBody:
        raise
    except (ValueError, TypeError, LookupError, RecursionError, ArithmeticError, MemoryError) as error:
        raise BadBody(f"{error}"[:300] or type(error).__name__) from error
