"""Requests to the API server and lists in pages: bounded responses, errors and metrics."""

import asyncio
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any, Final, TypeVar

import aiohttp
from kubernetes.aio.client import ApiClient
from kubernetes.aio.client.exceptions import ApiException
from kubernetes.aio.dynamic import DynamicClient
from kubernetes.aio.dynamic.exceptions import DynamicApiError

from marketfeed_operator import nesting
from marketfeed_operator.engine.metrics import Metrics
from marketfeed_operator.errors import Unavailable, translated
from marketfeed_operator.kinds import Kind
from marketfeed_operator.pages import (
    LARGE_BYTES,
    MAX_OBJECT_BYTES,
    MAX_PAGE_BYTES,
    Page,
    decode_body,
    read_at_most,
    taken,
)

REQUEST_SECONDS: Final = 30
FIRST_PAGE: Final = 20
LARGEST_PAGE: Final = 500
"""Objects per page: as many as fit into `MAX_PAGE_BYTES`, found by doubling and halving."""

Object = dict[str, Any]
T = TypeVar("T")


class ApiRequests:
    """Sends requests with plain objects; every failure is an `ApiError`."""

    def __init__(self, client: ApiClient, metrics: Metrics) -> None:
        self._client = client
        # Not awaited, and so without discovery of all kinds: the kinds in use are known.
        self._dynamic = DynamicClient(client)  # type: ignore[no-untyped-call]
        self._metrics = metrics

    async def get(self, path: str, **query: Any) -> Object:
        """Get one object, or one page of a list."""
        return await self._request("get", path, **query)

    async def list_all(self, kind: Kind, namespace: str | None, label_selector: str) -> list[Object]:
        """List all objects of a kind that match the label selector.

        Args:
            kind: kind of the objects.
            namespace: their namespace; None for all namespaces.
            label_selector: label selector; "" for all objects.
        """
        return [item async for item in self.each(kind, namespace, label_selector, lambda body: body)]

    async def each(
        self, kind: Kind, namespace: str | None, label_selector: str, take: Callable[[Object], T]
    ) -> AsyncIterator[T]:
        """Yield what `take` returns for each object of a kind that matches the label selector.

        Objects are decoded one at a time in a thread, and at most one page is held in memory: the size and number of
        objects with our labels are not under our control.

        Args:
            kind: kind of the objects.
            namespace: their namespace; None for all namespaces.
            label_selector: label selector; "" for all objects.
            take: called with each decoded object.
        """
        limit, proceed = FIRST_PAGE, None
        while True:
            page = await self.page(
                kind.path(namespace), take, limit=limit, label_selector=label_selector, _continue=proceed
            )
            for each in page.items:
                yield each
            proceed = page.proceed
            if proceed is None:
                return
            limit = min(page.limit * 2, LARGEST_PAGE) if page.size * 2 <= MAX_PAGE_BYTES else page.limit

    async def page(self, path: str, take: Callable[[Object], T], *, limit: int, **query: Any) -> Page[T]:
        """Get one page of a list, of `limit` objects or as many fewer as fit into `MAX_PAGE_BYTES`.

        Args:
            path: path of the list.
            take: called with each decoded object.
            limit: maximum number of objects.
            query: further query parameters.
        """
        while True:
            bound = MAX_PAGE_BYTES if limit > 1 else MAX_OBJECT_BYTES
            text = await self._read("get", path, max_bytes=bound, limit=limit, **query)
            if text is None and limit == 1:
                raise Unavailable(0, f"an object of {path} has more than {MAX_OBJECT_BYTES} bytes")
            if text is None:
                limit = max(1, limit // 2)
                continue
            try:
                return await decode_body(partial(taken, text, take, limit))
            except ValueError as error:
                raise self._no_answer("get", error) from error

    async def _request(self, verb: str, path: str, **arguments: Any) -> Object:
        text = await self._read(verb, path, max_bytes=MAX_OBJECT_BYTES, **arguments)
        if text is None:
            raise Unavailable(0, f"the response to {verb} {path} has more than {MAX_OBJECT_BYTES} bytes")
        try:
            loads = partial(nesting.loads, text)
            answer: Object = loads() if len(text) < LARGE_BYTES else await decode_body(loads)
        except ValueError as error:
            raise self._no_answer(verb, error) from error
        return answer

    async def _read(self, verb: str, path: str, *, max_bytes: int, **arguments: Any) -> bytes | None:
        """Return the body of a response; None when it is larger than `max_bytes`, in which case it is not read to the
        end.
        """
        self._metrics.api_requests.labels(verb).inc()
        try:
            response = await self._dynamic.request(
                verb,
                path,
                serialize=False,
                _request_timeout=aiohttp.ClientTimeout(total=REQUEST_SECONDS),
                **arguments,
            )
            return await read_at_most(response, max_bytes)
        except (DynamicApiError, ApiException) as error:
            self._metrics.api_failures.labels(verb, str(error.status)).inc()
            raise translated(error) from error
        except (aiohttp.ClientError, TimeoutError, asyncio.IncompleteReadError, OSError, ValueError) as error:
            raise self._no_answer(verb, error) from error

    def _no_answer(self, verb: str, error: Exception) -> Unavailable:
        self._metrics.api_failures.labels(verb, "none").inc()
        return Unavailable(0, f"no response from the API server: {error!r}")
