"""Faults of the cluster: SIGKILL of a container, power loss of a node."""

import subprocess
from typing import Any, Final

from e2e_kube import Kube, run, until

Object = dict[str, Any]
_GONE_SECONDS: Final = 60.0
_NODE_SECONDS: Final = 240.0


def kill(kube: Kube, pod: Object) -> None:
    """Send SIGKILL to the first container of `pod`; return when it has ended.

    On nodes that are containers here it is the kernel's signal, and the kubelet starts the container again in the same
    pod. Elsewhere the pod is deleted without grace, the closest equivalent from outside.
    """
    metadata = pod["metadata"]
    namespace, name = metadata["namespace"], metadata["name"]
    if not kube.on_kind:
        kube.run("--namespace", namespace, "delete", "pod", name, "--grace-period=0", "--force")
        return
    before = container(pod)
    task = ["ctr", "--namespace=k8s.io", "task", "kill", "--signal=SIGKILL", before]
    run(["docker", "exec", pod["spec"]["nodeName"], *task])

    def ended() -> bool:
        found = kube.find(namespace, "pod", name)
        return found is None or container(found) != before or not _runs(found)

    until(f"{namespace}/{name} has ended", ended, seconds=_GONE_SECONDS, every=0.2)


def container(pod: Object) -> str:
    """Return the id of the pod's first container; "" while it has none."""
    states = pod["status"].get("containerStatuses", [])
    return str(states[0].get("containerID", "")).rpartition("//")[2] if states else ""


def _runs(pod: Object) -> bool:
    states = pod["status"].get("containerStatuses", [])
    return bool(states) and "running" in states[0]["state"]


def stop_node(node: str) -> None:
    """Cut the power of a node of the test's own cluster: everything on it ends at once."""
    subprocess.run(["docker", "kill", node], check=True, capture_output=True)


def start_node(kube: Kube, node: str) -> None:
    """Start such a node again, and wait until it is ready."""
    subprocess.run(["docker", "start", node], check=True, capture_output=True)
    kube.run("wait", "--for=condition=Ready", f"node/{node}", f"--timeout={_NODE_SECONDS:.0f}s", seconds=300)


def leader(kube: Kube, namespace: str) -> str:
    """Return the name of the operator's pod that holds the leader Lease."""
    leases = kube.get(namespace, "leases")["items"]
    holders = [each["spec"].get("holderIdentity") for each in leases]
    found = next((holder for holder in holders if holder), None)
    assert found, f"no pod holds a Lease in {namespace}: {leases}"
    return str(found).split("_")[0].split("/")[-1]
