"""Model of the part of aiohttp that the worker uses: a session whose requests the venue's model answers."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from types import TracebackType
from typing import Any, TypeAlias

from aiohttp import ClientTimeout

Answer: TypeAlias = Callable[[int, str, Mapping[str, str], Mapping[str, str]], Awaitable["Response"]]
"""Returns the response to a request of a process: its number, endpoint, query and headers."""


class HttpSession:
    """Model of the part of an aiohttp session that the worker uses."""

    def __init__(self, answer: Answer, life: int) -> None:
        self._answer = answer
        self._life = life

    async def __aenter__(self) -> "HttpSession":
        return self

    async def __aexit__(self, *_: object) -> None:
        return None

    def get(
        self,
        url: str,
        *,
        params: Mapping[str, str],
        headers: Mapping[str, str],
        timeout: ClientTimeout,
        **_: Any,
    ) -> "_Request":
        """See `aiohttp.ClientSession.get`."""
        return _Request(
            self._answer, self._life, url.partition("/api/v3/")[2], params, headers, timeout.total or 300.0
        )


class _Request:
    def __init__(
        self,
        answer: Answer,
        life: int,
        endpoint: str,
        query: Mapping[str, str],
        headers: Mapping[str, str],
        total_seconds: float,
    ) -> None:
        self._answer = answer
        self._given = (life, endpoint, query, headers)
        self._total_seconds = total_seconds

    async def __aenter__(self) -> "Response":
        async with asyncio.timeout(self._total_seconds):
            return await self._answer(*self._given)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None


class Response:
    """Model of the part of an aiohttp response that the worker uses."""

    def __init__(self, status: int, body: bytes, headers: Mapping[str, str]) -> None:
        self.status = status
        self.headers = headers
        self.content_length = len(body)
        self.content = self
        self._body = body

    async def read(self) -> bytes:
        """The body."""
        return self._body

    async def iter_any(self) -> AsyncIterator[bytes]:
        """Model of a streamed body; see `aiohttp.StreamReader`."""
        yield self._body

    async def iter_chunked(self, _size: int) -> AsyncIterator[bytes]:
        """Yield the body by chunks."""
        yield self._body
