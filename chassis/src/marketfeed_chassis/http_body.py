"""Reading the bodies of HTTP responses from servers that nobody can vouch for."""

from typing import Final

from aiohttp import ClientResponse

MAX_BODY_BYTES: Final = 64 * 2**20
"""Several times the largest response that a venue documents (the listing of all symbols, with every filter)."""


class BodyTooLargeError(ValueError):
    """A body has more bytes than are read."""


async def read_body(response: ClientResponse, max_bytes: int = MAX_BODY_BYTES) -> bytes:
    """Read a body of at most `max_bytes`, as sent and after decompression; the connection is closed where it has more.

    The client library decompresses in small pieces as they are read, so no more than the bound is ever in memory.
    How long it may take is for the request's own timeout.

    Raises:
        BodyTooLargeError: the body is larger.
        aiohttp.ClientError, TimeoutError: it cannot be read.
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
