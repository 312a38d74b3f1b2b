"""API server client: the only module that sends requests to it (over `api_requests`), apart from kopf's watches."""

import contextlib
import json
import os
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Final

from kubernetes.aio.client import ApiClient, Configuration
from kubernetes.aio.config import ConfigException, load_incluster_config, load_kube_config

from marketfeed_operator.api_requests import ApiRequests, Object
from marketfeed_operator.engine.metrics import Metrics
from marketfeed_operator.errors import NotFound
from marketfeed_operator.kinds import KAFKA, OPTIONAL, Kind
from marketfeed_operator.names import API_VERSION, CREATION_MANAGER, FIELD_MANAGER, KIND, PLURAL
from marketfeed_operator.text import api_time_now
from marketfeed_service.errors import StartupError

FEEDS: Final = Kind(API_VERSION, KIND, PLURAL)
EVENTS: Final = Kind("v1", "Event", "events")

APPLY_PATCH: Final = "application/apply-patch+yaml; charset=utf-8"
"""With the parameter, which the API server ignores: without it the client library encodes the body by itself."""

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


class Cluster(ApiRequests):
    """Requests to the API server with plain objects; every failure is an `ApiError`."""

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
        moment = api_time_now()
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
