"""HTTP session for kopf's lists and watches: records responses of the API server, reads lists in pages of bounded
size (see `pages`), and passes trimmed objects to kopf (see `trim`).

kopf accepts a custom session (`kopf.AiohttpSession`), and aiohttp a middleware and a response class; no internals of
either are used.
"""

import json
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any, Final, cast

import aiohttp
import kopf

from marketfeed_operator import nesting
from marketfeed_operator.cluster import Credentials
from marketfeed_operator.pages import (
    LARGE_BYTES,
    MAX_OBJECT_BYTES,
    MAX_PAGE_BYTES,
    Object,
    decode_body,
    read_at_most,
    taken,
)
from marketfeed_operator.trim import trimming

WATCH_PAGE: Final = 20
"""Objects per page of the lists that precede watches."""

Trim = Callable[[Object], Object]


def watch_session(given: Credentials, seen: Callable[[str], None]) -> aiohttp.ClientSession:
    """Return a session for kopf.

    Args:
        seen: called with a path on each response of the API server there, including data of a stream.
    """
    how = kopf.ConnectionInfo(
        server=given.server,
        token=given.token,
        ca_path=given.ca_file,
        certificate_path=given.certificate_file,
        private_key_path=given.key_file,
        insecure=given.insecure,
    )

    limits: dict[str, int] = {}
    """List path -> objects of its next page, where the last were large."""

    async def note(
        request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        path = request.url.path
        if path in limits and "watch" not in request.url.query:
            request.url = request.url.update_query(limit=limits[path])
        response = await handler(request)
        # An overloaded or faulty server has not responded; a refusal is a response.
        if response.status < 429:
            seen(path)
        trim = trimming(path.rpartition("/")[2])
        if response.status == 200 and request.url.query.get("watch") == "true":
            noted = _NotedStream(response.content, lambda: seen(path), trim)
            response.content = cast("aiohttp.StreamReader", noted)
        elif response.status == 200 and trim is not None:
            return await _page(request, handler, response, trim, limits)
        return response

    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, ssl=how.as_ssl_context()),
        headers=how.as_http_headers(),
        proxy=given.proxy_url,
        middlewares=(note,),
        response_class=_ShallowResponse,
    )


async def _page(
    request: aiohttp.ClientRequest,
    handler: aiohttp.ClientHandlerType,
    response: aiohttp.ClientResponse,
    trim: Trim,
    limits: dict[str, int],
) -> aiohttp.ClientResponse:
    """Read a page of a list; request fewer objects when it is too large."""
    limit = int(request.url.query.get("limit", WATCH_PAGE))
    while response.status == 200:
        text = await read_at_most(response, MAX_PAGE_BYTES if limit > 1 else MAX_OBJECT_BYTES)
        if text is not None:
            limits[request.url.path] = (
                min(2 * limit, WATCH_PAGE) if len(text) * 2 <= MAX_PAGE_BYTES else limit
            )
            page = await decode_body(partial(taken, text, trim, limit))
            cast("_ShallowResponse", response).page = {**page.head, "items": page.items}
            return response
        if limit == 1:
            raise aiohttp.ClientPayloadError(
                f"an object of {request.url.path} has more than {MAX_OBJECT_BYTES} bytes"
            )
        limit = max(1, limit // 2)
        request.url = request.url.update_query(limit=limit)
        response = await handler(request)
    return response


class _ShallowResponse(aiohttp.ClientResponse):
    """Response whose JSON can be decoded at any nesting depth.

    Attributes:
        page: the bytes read, if it is a page of a list.
    """

    page: Object | None = None

    async def json(
        self,
        *,
        encoding: str | None = None,
        loads: Callable[[str], Any] = nesting.loads,
        content_type: str | None = "application/json",
    ) -> Any:
        """Decode the body; kopf reads lists by this."""
        if self.page is not None:
            return self.page
        return await super().json(encoding=encoding, loads=loads, content_type=content_type)


class _NotedStream:
    """Stream of a watch, one event per line; records each chunk and its regular end."""

    def __init__(self, stream: aiohttp.StreamReader, note: Callable[[], None], trim: Trim | None) -> None:
        self._stream = stream
        self._note = note
        self._trim = trim

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    async def iter_chunked(self, size: int) -> AsyncIterator[bytes]:
        """Yield the lines of a watch; kopf reads watches by this."""
        rest = b""
        async for piece in self._stream.iter_chunked(size):
            self._note()
            *events, rest = (rest + piece).split(b"\n")
            for event in events:
                yield await self._event(event) + b"\n"
        if rest:
            yield await self._event(rest)
        self._note()

    async def _event(self, line: bytes) -> bytes:
        made = partial(_trimmed, line, self._trim)
        return made() if len(line) < LARGE_BYTES else await decode_body(made)


def _trimmed(line: bytes, trim: Trim | None) -> bytes:
    """Return an event with its object trimmed; unchanged when it cannot be decoded or has no object."""
    line = nesting.shallow(line)
    if trim is None:
        return line
    try:
        event = json.loads(line)
    except ValueError:
        return line
    if not isinstance(event, dict) or event.get("type") not in ("ADDED", "MODIFIED", "DELETED"):
        return line
    return json.dumps({**event, "object": trim(event["object"])}).encode()
