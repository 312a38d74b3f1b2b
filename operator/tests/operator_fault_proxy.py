"""Proxy before the API server that injects faults: watches cut or ended with 410, requests answered with 409, 429,
500.
"""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import aiohttp
from aiohttp import web

GONE = (
    b'{"type":"ERROR","object":{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"Expired","code":410,'
    b'"message":"too old resource version"}}\n'
)

REASONS = {
    403: "Forbidden",
    409: "Conflict",
    429: "TooManyRequests",
    500: "InternalError",
    503: "ServiceUnavailable",
}


class FaultProxy:
    """Forwards to the API server, with injected faults.

    Attributes:
        refuse: called with each request (method, path); returns a status to respond with instead of forwarding, or
            None.
        blocked: watches are refused while it is set, including those being established.
        seen: (method, path) of every forwarded request.
    """

    def __init__(self, server: str, ca_file: Path) -> None:
        self._server = server
        self._trust = ssl.create_default_context(cafile=str(ca_file))
        self.refuse: Callable[[str, str], int | None] = lambda _method, _path: None
        self.blocked = False
        self.seen: list[tuple[str, str]] = []
        self.port = 0
        self._watches: set[asyncio.Task[None]] = set()
        self._frozen: set[asyncio.Task[None]] = set()
        self._ending = b""
        self._session: aiohttp.ClientSession | None = None

    @property
    def watches(self) -> int:
        """Return the number of open watches."""
        return len(self._watches)

    def freeze_watches(self) -> None:
        """Stop forwarding data of the open watches without closing them; new ones work."""
        self._frozen |= self._watches
        for watch in list(self._watches):
            watch.cancel()

    def cut_watches(self, ending: bytes = b"") -> None:
        """End all open watches, after sending `ending`."""
        self._ending = ending
        for watch in list(self._watches):
            watch.cancel()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator["FaultProxy"]:
        app = web.Application(client_max_size=2**26)
        app.router.add_route("*", "/{path:.*}", self._handle)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
        async with aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=self._trust, limit=0)
        ) as self._session:
            await runner.setup()
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            self.port = runner.addresses[0][1]
            try:
                yield self
            finally:
                await runner.cleanup()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        watch = request.query.get("watch") == "true"
        status = 503 if watch and self.blocked else self.refuse(request.method, request.path)
        if status is not None:
            body = {
                "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": status,
                "reason": REASONS.get(status, ""), "message": "injected fault",
            }  # fmt: skip
            return web.json_response(
                body, status=status, headers={"Retry-After": "1"} if status == 429 else None
            )
        self.seen.append((request.method, request.path))
        headers = {
            name: value
            for name, value in request.headers.items()
            if name.lower() not in ("host", "content-length")
        }
        assert self._session is not None
        async with self._session.request(
            request.method, self._server + request.path_qs, headers=headers, data=await request.read() or None,
            timeout=aiohttp.ClientTimeout(total=None),
        ) as answer:  # fmt: skip
            response = web.StreamResponse(
                status=answer.status,
                headers={"Content-Type": answer.headers.get("Content-Type", "application/json")},
            )
            with contextlib.suppress(ConnectionError):  # the client has disconnected
                await response.prepare(request)
                if watch:
                    await self._stream(request, answer, response)
                else:
                    await response.write(await answer.read())
                await response.write_eof()
            return response

    async def _stream(
        self, request: web.Request, answer: aiohttp.ClientResponse, response: web.StreamResponse
    ) -> None:
        if self.blocked:  # since the check
            return
        task = asyncio.create_task(_pump(answer, response))
        self._watches.add(task)
        try:
            await asyncio.wait({task})
        finally:
            self._watches.discard(task)
            task.cancel()
        if task in self._frozen:
            # aiohttp has no event for a client that disconnects.
            while request.transport is not None and not request.transport.is_closing():  # noqa: ASYNC110
                await asyncio.sleep(0.1)
        elif task.cancelled() and self._ending:
            await response.write(self._ending)


async def _pump(answer: aiohttp.ClientResponse, response: web.StreamResponse) -> None:
    with contextlib.suppress(aiohttp.ClientError, ConnectionError):
        async for chunk in answer.content.iter_any():
            await response.write(chunk)
