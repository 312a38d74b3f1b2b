"""Bounded reading of HTTP response bodies from untrusted servers."""

from typing import Final

from aiohttp import ClientResponse

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
