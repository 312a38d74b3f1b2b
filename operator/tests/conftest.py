"""Fixtures of the operator's tests: an API server, an operator with its own ServiceAccount, namespaces."""

import asyncio
import contextlib
import itertools
import os
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
from operator_control_plane import ControlPlane, control_plane
from operator_kubelet import Kubelet, kubelet
from operator_support import KINDS, Admin, Operator, admin_client, eventually, install, launch, operator_token

from marketfeed_devtools.ports import free_port
from marketfeed_devtools.programs import Unavailable
from marketfeed_devtools.skipping import skip_or_fail
from marketfeed_operator.errors import NotFound
from marketfeed_operator.kinds import KAFKA, OPTIONAL

_numbers = itertools.count()


@pytest.fixture(scope="session")
def api_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    with contextlib.ExitStack() as running:
        try:
            plane = running.enter_context(control_plane(tmp_path_factory.mktemp("apiserver")))
        except Unavailable as reason:
            skip_or_fail(reason)
        asyncio.run(install(plane.kubeconfig))
        yield plane


@pytest.fixture
async def admin(api_server: ControlPlane):
    """An administrator with a namespace of its own, enforcing the restricted Pod Security Standard."""
    name = f"test-{os.getpid()}-{next(_numbers)}"
    namespaces = KINDS["Namespace"]
    async with admin_client(api_server.kubeconfig) as cluster:
        body = {
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": {"name": name, "labels": {"pod-security.kubernetes.io/enforce": "restricted"}},
        }
        await cluster.apply(namespaces, body, manager="tests")
        yield Admin(cluster, name)
        with contextlib.suppress(NotFound):  # a test may have deleted it
            await cluster._request("delete", namespaces.path(None, name))


@pytest.fixture(scope="session")
def token(api_server: ControlPlane) -> str:
    return asyncio.run(operator_token(api_server.kubeconfig))


@pytest.fixture(scope="module")
def start_operator(
    api_server: ControlPlane, token: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[..., Operator]]:
    """Starts operators; each is stopped with the module, unless the test has done so."""
    with contextlib.ExitStack() as running:

        def start(
            *, server: str = "", ca_file: Path | None = None, wait: bool = True, **environment: str
        ) -> Operator:
            folder = tmp_path_factory.mktemp("operator")
            kubeconfig = api_server.kubeconfig_for(
                folder / "kubeconfig", token, server=server, ca_file=ca_file
            )
            operator = launch(folder, kubeconfig, running, **environment)
            if wait:
                operator.await_log(" leading ")
            return operator

        yield start


@pytest.fixture(scope="module")
def pod_port() -> int:
    """Port at which the module's operator polls /status of pods."""
    return free_port()


@pytest.fixture
async def nodes(admin: Admin, operator: Operator, pod_port: int) -> AsyncIterator[Kubelet]:
    """Runs the pods of the test's namespace; `operator` is the module's own."""
    async with kubelet(admin.cluster, admin.namespace, pod_port) as running:
        yield running


@pytest.fixture
async def neighbours(admin: Admin) -> None:
    """Minimal CRDs of other operators: the tests cover only their discovery and use."""
    crds = KINDS["CustomResourceDefinition"]
    for kind in (*OPTIONAL, KAFKA):
        body = {
            "apiVersion": crds.api_version, "kind": crds.kind,
            "metadata": {"name": f"{kind.plural}.{kind.group}"},
            "spec": {
                "group": kind.group, "scope": "Namespaced",
                "names": {"kind": kind.kind, "plural": kind.plural, "singular": kind.kind.lower()},
                "versions": [{
                    "name": kind.api_version.rpartition("/")[2], "served": True, "storage": True,
                    "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}},
                }],
            },
        }  # fmt: skip
        await admin.cluster.apply(crds, body, manager="tests")

    async def served():
        return await admin.cluster.optional_kinds() == {kind.kind for kind in (*OPTIONAL, KAFKA)}

    await eventually(served)
