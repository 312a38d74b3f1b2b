#!/usr/bin/env python3
"""A kind cluster for the whole-system tests: one control plane, two workers; no registry is needed.

    python tests/e2e/kind/kind_cluster.py image       build programs and node image into the cache, once
    python tests/e2e/kind/kind_cluster.py up          the cluster; prints the kubeconfig's path
    python tests/e2e/kind/kind_cluster.py load IMAGE…  images of the local Docker into its nodes
    python tests/e2e/kind/kind_cluster.py down        delete it

Kind's own node image is used where it can be pulled, else one is built from packages. E2E_NODE_IMAGE names another one.
"""

import argparse
import json
import os
import shutil
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import kind_images
import kind_node_image
import kind_programs

from marketfeed_devtools import cache, docker
from marketfeed_devtools.programs import Unavailable, exit_code

CLUSTER: Final = os.environ.get("E2E_CLUSTER", "marketfeed-e2e")
WORKERS: Final = 2
_READY_SECONDS: Final = 240.0
_KUBELET: Final = {
    "kind": "KubeletConfiguration",
    "apiVersion": "kubelet.config.k8s.io/v1beta1",
    "syncFrequency": "10s",
}
"""Shorter than the default, by which a changed ConfigMap or Secret reaches a running pod after a minute or more."""


def kubeconfig() -> Path:
    """Path of the cluster's kubeconfig; outside the tree, and separate from the user's own."""
    return cache.folder() / "clusters" / CLUSTER / "kubeconfig"


def nodes() -> list[str]:
    """Return the names of the cluster's nodes, which are containers; empty when there is no cluster."""
    listed = subprocess.run(
        [
            "docker",
            "ps",
            "--all",
            "--filter",
            f"label=io.x-k8s.kind.cluster={CLUSTER}",
            "--format={{.Names}}",
        ],
        check=True,
        capture_output=True,
        text=True,
    )
    return sorted(listed.stdout.split())


def node_image() -> str:
    """Return the node image: the named one, kind's own where it can be pulled, else a locally built one.

    Raises:
        Unavailable: it can neither be pulled nor built; the message has the reason.
    """
    docker.client()
    if named := os.environ.get("E2E_NODE_IMAGE"):
        return named
    if not docker.has_image(kind_node_image.image_name()) and (image := kind_node_image.pulled()):
        return image
    return kind_node_image.ensure()


def up() -> Path:
    """Start the cluster if it does not exist; return its kubeconfig.

    Raises:
        Unavailable: Docker or a program is missing.
        CalledProcessError: kind failed; its output is on the terminal.
    """
    docker.client()
    file = kubeconfig()
    if nodes() and file.exists():
        _await_nodes()
        return file
    image = node_image()
    file.parent.mkdir(parents=True, exist_ok=True)
    Path("/lib/modules").mkdir(exist_ok=True)  # kind mounts it, and a small virtual machine has none
    config = file.with_name("kind.json")
    config.write_text(json.dumps(_config(image), indent=1))
    _kind("create", "cluster", "--name", CLUSTER, "--kubeconfig", str(file), "--config", str(config))
    if image.startswith(kind_images.REGISTRY):
        _close_dns()
    _await_nodes()
    return file


def down() -> None:
    """Delete the cluster, if there is one."""
    if nodes():
        _kind("delete", "cluster", "--name", CLUSTER, "--kubeconfig", str(kubeconfig()))
    shutil.rmtree(kubeconfig().parent, ignore_errors=True)


def load(images: Sequence[str], *, everywhere: bool = True) -> None:
    """Load `images` from the local Docker into every node, or only into those without taints.

    Raises:
        CalledProcessError: Docker has no such image, or a node rejected it.
    """
    chosen = [] if everywhere else ["--nodes", ",".join(n for n in nodes() if "control-plane" not in n)]
    _kind("load", "docker-image", "--name", CLUSTER, *chosen, *images)


def kubectl(*arguments: str) -> str:
    """Return the output of kubectl.

    Raises:
        CalledProcessError: it failed.
    """
    file = kind_programs.build([kind_programs.KUBECTL])["kubectl"]
    return subprocess.run(
        [file, "--kubeconfig", kubeconfig(), *arguments], check=True, capture_output=True, text=True
    ).stdout


def _kind(*arguments: str) -> None:
    file = kind_programs.build([kind_programs.KIND])["kind"]
    subprocess.run([file, *arguments], check=True)


def _config(image: str) -> dict[str, Any]:
    roles = ["control-plane", *["worker"] * WORKERS]
    made: dict[str, Any] = {
        "kind": "Cluster",
        "apiVersion": "kind.x-k8s.io/v1alpha4",
        "networking": {"apiServerAddress": "127.0.0.1"},
        "nodes": [{"role": role, "image": image} for role in roles],
        "kubeadmConfigPatches": [json.dumps(_KUBELET)],
    }
    if image.startswith(kind_images.REGISTRY):
        settings = {
            "kind": "ClusterConfiguration",
            "imageRepository": kind_images.REGISTRY,
            "etcd": {"local": {"imageTag": kind_images.ETCD_TAG}},
            "dns": {"imageTag": kind_programs.COREDNS_VERSION},
        }
        made["kubeadmConfigPatches"].append(json.dumps(settings))
    return made


def _close_dns() -> None:
    """Make CoreDNS return an error for outside names at once, not after a time-out: they cannot be resolved."""
    settings = json.loads(kubectl("-n", "kube-system", "get", "configmap", "coredns", "-o", "json"))
    lines = settings["data"]["Corefile"].splitlines()
    kept, inside = [], False
    for line in lines:
        inside = inside or line.strip().startswith("forward .")
        if not inside and line.strip() != "loop":
            kept.append(line)
        inside = inside and line.strip() != "}"
    patch = json.dumps({"data": {"Corefile": "\n".join(kept) + "\n"}})
    kubectl("-n", "kube-system", "patch", "configmap", "coredns", "--patch", patch)
    # One is enough here, on the node that is never stopped.
    placement = {"nodeSelector": {"node-role.kubernetes.io/control-plane": ""}}
    patch = json.dumps({"spec": {"replicas": 1, "template": {"spec": placement}}})
    kubectl("-n", "kube-system", "patch", "deployment", "coredns", "--patch", patch)


def _await_nodes() -> None:
    deadline = time.monotonic() + _READY_SECONDS
    commands = (
        ("wait", "--for=condition=Ready", "nodes", "--all", "--timeout=120s"),
        ("-n", "kube-system", "rollout", "status", "deployment/coredns", "--timeout=120s"),
        (
            "-n",
            "local-path-storage",
            "rollout",
            "status",
            "deployment/local-path-provisioner",
            "--timeout=120s",
        ),
    )
    for command in commands:
        while True:
            try:
                kubectl(*command)
                break
            except subprocess.CalledProcessError as error:
                if time.monotonic() > deadline:
                    raise Unavailable(f"the cluster is not ready: {error.stderr}") from error
                time.sleep(2)


def main() -> int:
    """Run one of the verbs; return exit code 0 on success, 1 on failure, 3 when the machine lacks a program."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("verb", choices=("image", "up", "load", "down"))
    parser.add_argument("images", nargs="*", metavar="IMAGE")
    options = parser.parse_args()

    def work() -> None:
        match options.verb:
            case "image":
                kind_programs.build(kind_programs.ALL)
                print(node_image())
            case "up":
                print(up())
            case "load":
                load(options.images)
            case _:
                down()

    return exit_code(work)


if __name__ == "__main__":
    raise SystemExit(main())
