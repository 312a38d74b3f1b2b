"""API server client: the only module that sends requests to it, apart from kopf's watches."""

import asyncio
import contextlib
import json
import os
import re
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final, TypeVar

import aiohttp
from kubernetes.aio.client import ApiClient, Configuration
from kubernetes.aio.client.exceptions import ApiException
from kubernetes.aio.config import ConfigException, load_incluster_config, load_kube_config
from kubernetes.aio.dynamic import DynamicClient
from kubernetes.aio.dynamic.exceptions import DynamicApiError

from marketfeed_operator import nesting
from marketfeed_operator.engine.metrics import Metrics
from marketfeed_operator.errors import NotFound, Unavailable, translated
from marketfeed_operator.kinds import KAFKA, OPTIONAL, Kind
from marketfeed_operator.names import API_VERSION, CREATION_MANAGER, FIELD_MANAGER, KIND, PLURAL
from marketfeed_operator.pages import (
    LARGE_BYTES,
    MAX_OBJECT_BYTES,
    MAX_PAGE_BYTES,
    Page,
    decode_body,
    read_at_most,
    taken,
)
from marketfeed_service.errors import StartupError

FEEDS: Final = Kind(API_VERSION, KIND, PLURAL)
EVENTS: Final = Kind("v1", "Event", "events")
REQUEST_SECONDS: Final = 30
FIRST_PAGE: Final = 20
LARGEST_PAGE: Final = 500
"""Objects per page: as many as fit into `MAX_PAGE_BYTES`, found by doubling and halving."""


APPLY_PATCH: Final = "application/apply-patch+yaml; charset=utf-8"
"""With the parameter, which the API server ignores: without it the client library encodes the body by itself."""

Object = dict[str, Any]
T = TypeVar("T")
_NOT_AS_IT_IS: Final = re.compile(r"[^\x20-\x7e\U00010000-\U0010ffff]")


def yaml_of(body: Object) -> bytes:
    """Return an object as JSON that is YAML as well.

    YAML 1.2, section 5.7: an escape is one code point, so the API server rejects the surrogate pairs of JSON ("invalid
    Unicode character escape code"); and characters that are not printable must be escaped.
    """
    text = json.dumps(body, ensure_ascii=False)
    return _NOT_AS_IT_IS.sub(lambda found: f"\\u{ord(found[0]):04x}", text).encode()


@dataclass(frozen=True)
class Credentials:
    """Address and credentials of the API server; files by their path."""

    server: str
    token: str | None = field(repr=False)
    ca_file: str | None
    certificate_file: str | None
    key_file: str | None
    insecure: bool
    proxy_url: str | None


class Cluster:
    """Requests to the API server with plain objects; every failure is an `ApiError`."""

    def __init__(self, client: ApiClient, metrics: Metrics) -> None:
        self._client = client
        # Not awaited, and so without discovery of all kinds: the kinds in use are known.
        self._dynamic = DynamicClient(client)  # type: ignore[no-untyped-call]
        self._metrics = metrics

    async def credentials(self) -> Credentials:
        """Return the current credentials: the token file of a pod is renewed while the operator runs."""
        configuration = self._client.configuration
        token = await configuration.get_api_key_with_prefix("BearerToken")
        return Credentials(
            server=configuration.host,
            token=token.rpartition(" ")[2] if token else None,
            ca_file=configuration.ssl_ca_cert,
            certificate_file=configuration.cert_file,
            key_file=configuration.key_file,
            insecure=not configuration.verify_ssl,
            proxy_url=configuration.proxy,
        )

    async def get(self, path: str, **query: Any) -> Object:
        """Get one object, or one page of a list."""
        return await self._request("get", path, **query)

    async def metadata(self, kind: Kind, namespace: str, name: str) -> Object:
        """Get the metadata of an object; the response does not contain the rest of it.

        Args:
            kind: kind of the object.
            namespace: its namespace.
            name: its name.
        """
        accept = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
        found = await self._request("get", kind.path(namespace, name), header_params={"Accept": accept})
        metadata: Object = found["metadata"]
        return metadata

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

    async def apply(
        self,
        kind: Kind,
        body: Object,
        *,
        manager: str = FIELD_MANAGER,
        subresource: str = "",
        dry_run: bool = False,
        force: bool = True,
    ) -> Object:
        """Apply by server-side apply: the operator owns the fields in `body`, and no longer those left out.

        With a `metadata.uid` in `body`, another object under that name is a conflict.

        Args:
            dry_run: validate without storing.
            force: take ownership from other managers; otherwise a field that another manager set differently is a
                conflict.
        """
        metadata = body["metadata"]
        return await self._request(
            "patch",
            kind.path(metadata.get("namespace"), metadata["name"])
            + (f"/{subresource}" if subresource else ""),
            body=yaml_of(body),
            content_type=APPLY_PATCH,
            field_manager=manager,
            force_conflicts="true" if force else "false",
            dry_run="All" if dry_run else None,
        )

    async def merge(self, path: str, body: Object) -> Object:
        """Apply a merge patch."""
        return await self._request(
            "patch", path, body=body, content_type="application/merge-patch+json", field_manager=FIELD_MANAGER
        )

    async def release_fields(self, kind: Kind, namespace: str, name: str, *, uid: str, entry: int) -> Object:
        """Remove one entry of an object's `managedFields`, if it is that of a creation by the operator.

        Fields owned by the creation would stay when a later apply leaves them out: an apply has an entry of its own.

        Args:
            kind: kind of the object.
            namespace: its namespace.
            name: its name.
            uid: its uid; another object under the name is a conflict.
            entry: index of the entry in `managedFields`.
        """
        at = f"/metadata/managedFields/{entry}"
        body = [
            {"op": "test", "path": "/metadata/uid", "value": uid},
            {"op": "test", "path": f"{at}/manager", "value": CREATION_MANAGER},
            {"op": "remove", "path": at},
        ]
        return await self._request(
            "patch",
            kind.path(namespace, name),
            body=body,
            content_type="application/json-patch+json",
            field_manager=FIELD_MANAGER,
        )

    async def create(self, path: str, body: Object, *, manager: str = FIELD_MANAGER) -> Object:
        """Create an object in the collection at `path`; an existing one is a conflict.

        Args:
            path: path of the collection.
            body: the object.
            manager: field manager of its fields.
        """
        return await self._request("post", path, body=body, field_manager=manager)

    async def replace(self, path: str, body: Object) -> Object:
        """Replace an object; a change since it was read is a conflict."""
        return await self._request("put", path, body=body, field_manager=FIELD_MANAGER)

    async def delete(self, kind: Kind, namespace: str, name: str, *, uid: str, orphan: bool = False) -> None:
        """Delete the object with that uid, and its dependents unless `orphan`.

        Args:
            kind: kind of the object.
            namespace: its namespace.
            name: its name.
            uid: its uid; another object under the name is a conflict.
            orphan: keep the dependents.
        """
        await self._request(
            "delete",
            kind.path(namespace, name),
            body={
                "apiVersion": "v1",
                "kind": "DeleteOptions",
                "propagationPolicy": "Orphan" if orphan else "Background",
                "preconditions": {"uid": uid},
            },
        )

    async def event(self, feed: Object, *, warning: bool, reason: str, message: str, instance: str) -> None:
        """Create an Event on a MarketFeed.

        Args:
            feed: the MarketFeed.
            warning: whether its type is Warning instead of Normal.
            reason: reason, in CamelCase.
            message: message; truncated to the limit of the API.
            instance: name of the reporting process.
        """
        moment = datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
        namespace = feed["namespace"]
        await self.create(
            EVENTS.path(namespace),
            {
                "apiVersion": "v1",
                "kind": "Event",
                "metadata": {"generateName": f"{feed['name']}.", "namespace": namespace},
                "involvedObject": {"apiVersion": API_VERSION, "kind": KIND, **feed},
                "type": "Warning" if warning else "Normal",
                "reason": reason,
                # The API limits bytes, and symbols may contain CJK characters.
                "message": message.encode()[:1000].decode(errors="ignore"),
                "source": {"component": FIELD_MANAGER},
                "reportingComponent": FIELD_MANAGER,
                "reportingInstance": instance[:128],
                "action": "Reconcile",
                "eventTime": moment,
                "firstTimestamp": moment[:19] + "Z",
                "lastTimestamp": moment[:19] + "Z",
                "count": 1,
            },
        )

    async def optional_kinds(self) -> frozenset[str]:
        """Return the optional kinds that the cluster serves."""
        groups = (await self.get("/apis"))["groups"]
        served = {version["groupVersion"] for group in groups for version in group["versions"]}
        found = set()
        for kind in (*OPTIONAL, KAFKA):
            if kind.api_version not in served:
                continue
            try:
                resources = (await self.get(f"/apis/{kind.api_version}"))["resources"]
            except NotFound:  # removed since
                continue
            found |= {kind.kind for resource in resources if resource["name"] == kind.plural}
        return frozenset(found)

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


@contextlib.asynccontextmanager
async def connected(metrics: Metrics) -> AsyncIterator[Cluster]:
    """Connect to the cluster of KUBECONFIG, or to the one that the operator runs in.

    Raises:
        StartupError: neither is available.
    """
    configuration = Configuration()
    try:
        if os.environ.get("KUBECONFIG"):
            await load_kube_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
        else:
            load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
    except (ConfigException, OSError) as error:
        raise StartupError(
            f"no API server configured: {error}. Set KUBECONFIG, or run in a cluster"
        ) from error
    async with ApiClient(configuration) as client:
        yield Cluster(client, metrics)
