"""What to make of the bodies of HTTP responses: a server that we ask decides neither our memory nor when we end."""

import asyncio
from collections.abc import Callable
from typing import TypeVar

import aiohttp

from marketfeed_chassis.http_body import BodyTooLargeError, read_body

T = TypeVar("T")


class BadBody(ValueError):
    """A body is larger than it may be, is cut short, or is not what it should be."""


async def decoded(response: aiohttp.ClientResponse, decode: Callable[[bytes], T], *, max_bytes: int) -> T:
    """Return what `decode` makes of the body, in a thread: a large body must not hold up the loop.

    Raises:
        BadBody: the body is too large, or `decode` cannot make anything of it.
        aiohttp.ClientError, TimeoutError, OSError: the connection failed.
    """
    try:
        body = await read_body(response, max_bytes)
    except (BodyTooLargeError, aiohttp.ClientPayloadError) as error:
        raise BadBody(f"the response cannot be read: {error}") from error
    return await asyncio.to_thread(interpreted, body, decode)


def interpreted(body: bytes, decode: Callable[[bytes], T]) -> T:
    """Return what `decode` makes of `body`.

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
