"""Bounded reading of HTTP response bodies from untrusted servers."""

import asyncio
from collections.abc import Callable
from typing import Final, TypeVar

import aiohttp
from aiohttp import ClientResponse

T = TypeVar("T")

MAX_BODY_BYTES: Final = 64 * 2**20
"""Several times the largest response that a venue documents (the list of all symbols, with all filters)."""


class BodyTooLargeError(ValueError):
    """A response body is larger than the maximum."""


async def read_body(response: ClientResponse, max_bytes: int = MAX_BODY_BYTES) -> bytes:
    """Read a body of at most `max_bytes`, as sent and after decompression; close the connection if it is larger.

    The client library decompresses small pieces as they are read, so memory is bounded. The duration is bounded by the
    request's own timeout.

    Raises:
        BodyTooLargeError: the body is larger.
        aiohttp.ClientError, TimeoutError: the connection failed.
    """
    if (response.content_length or 0) > max_bytes:
        response.close()
        raise BodyTooLargeError(f"Content-Length {response.content_length} is above {max_bytes} bytes")
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > max_bytes:
            response.close()
            raise BodyTooLargeError(f"the body has more than {max_bytes} bytes")
    return bytes(body)


class BadBody(ValueError):
    """A response body is too large, truncated, or invalid."""


async def decode_body(response: aiohttp.ClientResponse, decode: Callable[[bytes], T], *, max_bytes: int) -> T:
    """Read a response body and decode it in a thread, so that a large body does not block the event loop.

    Args:
        response: the response whose body is read.
        decode: converts the body; runs in a thread.
        max_bytes: maximum size of the body, decompressed.

    Raises:
        BadBody: the body is too large or truncated, or `decode` fails.
        aiohttp.ClientError, TimeoutError, OSError: the connection failed.
    """
    try:
        body = await read_body(response, max_bytes)
    except (BodyTooLargeError, aiohttp.ClientPayloadError) as error:
        raise BadBody(f"the response cannot be read: {error}") from error
    return await asyncio.to_thread(decode_bytes, body, decode)


def decode_bytes(body: bytes, decode: Callable[[bytes], T]) -> T:
    """Decode `body` by `decode`.

    Raises:
        BadBody: `decode` raised what decoders raise: ValueError (JSON, UTF-8, numbers, times), TypeError, LookupError,
            RecursionError for deep nesting, ArithmeticError, MemoryError.
    """
    try:
        return decode(body)
    except BadBody:
        raise
    except (ValueError, TypeError, LookupError, RecursionError, ArithmeticError, MemoryError) as error:
        raise BadBody(f"{error}"[:300] or type(error).__name__) from error
