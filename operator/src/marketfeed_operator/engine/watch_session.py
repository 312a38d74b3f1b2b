"""The HTTP session that kopf's lists and watches go through: it notes when the API server answers, and cuts what is
nested too deep for kopf (see `nesting`).

kopf takes a session of ours (`kopf.AiohttpSession`), and aiohttp a middleware around each of its requests and a class
of its responses; so nothing of either is reached into.
"""

from collections.abc import AsyncIterator, Callable
from typing import Any, cast

import aiohttp
import kopf

from marketfeed_operator import nesting
from marketfeed_operator.cluster import Credentials


def watch_session(given: Credentials, seen: Callable[[str], None]) -> aiohttp.ClientSession:
    """Return a session for kopf.

    Args:
        seen: is told of a path whenever the API server answers there, also in the middle of a stream.
    """
    how = kopf.ConnectionInfo(
        server=given.server,
        token=given.token,
        ca_path=given.ca_file,
        certificate_path=given.certificate_file,
        private_key_path=given.key_file,
        insecure=given.insecure,
    )

    async def note(
        request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        response = await handler(request)
        # An overloaded or broken server has not answered; one that refuses has.
        if response.status < 429:
            seen(request.url.path)
        if response.status == 200 and request.url.query.get("watch") == "true":
            noted = _NotedStream(response.content, lambda: seen(request.url.path))
            response.content = cast("aiohttp.StreamReader", noted)
        return response

    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, ssl=how.as_ssl_context()),
        headers=how.as_http_headers(),
        proxy=given.proxy_url,
        middlewares=(note,),
        response_class=_ShallowResponse,
    )


class _ShallowResponse(aiohttp.ClientResponse):
    """A response whose JSON can be decoded however deep it is nested."""

    async def json(
        self,
        *,
        encoding: str | None = None,
        loads: Callable[[str], Any] = nesting.loads,
        content_type: str | None = "application/json",
    ) -> Any:
        """What kopf reads a list by."""
        return await super().json(encoding=encoding, loads=loads, content_type=content_type)


class _NotedStream:
    """The stream of a watch, an event a line: notes each piece that arrives, and its regular end."""

    def __init__(self, stream: aiohttp.StreamReader, note: Callable[[], None]) -> None:
        self._stream = stream
        self._note = note

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    async def iter_chunked(self, size: int) -> AsyncIterator[bytes]:
        """What kopf reads a watch by."""
        rest = b""
        async for piece in self._stream.iter_chunked(size):
            self._note()
            *events, rest = (rest + piece).split(b"\n")
            if events:
                yield b"".join(nesting.shallow(event) + b"\n" for event in events)
        if rest:
            yield nesting.shallow(rest)
        self._note()
