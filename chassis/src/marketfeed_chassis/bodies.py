"""Decoding of HTTP response bodies within bounds: no server can exhaust memory or block the event loop."""

import asyncio
from collections.abc import Callable
from typing import TypeVar

import aiohttp

from marketfeed_chassis.http_body import BodyTooLargeError, read_body

T = TypeVar("T")


class BadBody(ValueError):
    """A response body is too large, truncated, or invalid."""


async def decoded(response: aiohttp.ClientResponse, decode: Callable[[bytes], T], *, max_bytes: int) -> T:
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
    return await asyncio.to_thread(interpreted, body, decode)


def interpreted(body: bytes, decode: Callable[[bytes], T]) -> T:
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
