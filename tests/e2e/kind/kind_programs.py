"""The programs of a node image and of the tests, and the Go modules that they are built from once."""

import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from marketfeed_devtools import go
from marketfeed_devtools.go import Program, kubernetes, pinned

ROOT: Final = Path(__file__).parents[3]
MODULES: Final = Path(__file__).parent / "modules"
CLIENTS: Final = MODULES / "clients"
"""Programs that depend on Kubernetes' client libraries: one module, so that those are built once."""

CONTROL_PLANE: Final = ROOT / "operator" / "tests" / "apiserver"
"""Go modules that the operator's tests pin already: the control plane there and here is the same."""

KUBERNETES_VERSION: Final = pinned(CONTROL_PLANE / "kubernetes", "k8s.io/kubernetes")
ETCD_VERSION: Final = pinned(CONTROL_PLANE / "etcd", "go.etcd.io/etcd/server/v3")
PROMETHEUS_OPERATOR: Final = "github.com/prometheus-operator/prometheus-operator"
PROMETHEUS_OPERATOR_VERSION: Final = pinned(CLIENTS, PROMETHEUS_OPERATOR)
PROMETHEUS: Final = "github.com/prometheus/prometheus"
_MAJOR_MINOR, _PATCH = pinned(CLIENTS, PROMETHEUS).removeprefix("v0.").split(".")
PROMETHEUS_VERSION: Final = f"v{int(_MAJOR_MINOR[0])}.{int(_MAJOR_MINOR[1:])}.{_PATCH}"
"""Release 3.13.1 is the Go module v0.313.1."""
KIND_VERSION: Final = "v0.32.0"
COREDNS_VERSION: Final = pinned(CLIENTS, "github.com/coredns/coredns")
LOCAL_PATH: Final = "github.com/rancher/local-path-provisioner"
LOCAL_PATH_VERSION: Final = pinned(CLIENTS, LOCAL_PATH)  # the newest that is available as a Go module

KIND: Final = Program("kind", "sigs.k8s.io/kind", version=KIND_VERSION)
KUBECTL: Final = kubernetes("kubectl", CONTROL_PLANE / "kubernetes")
_KUBERNETES_PROGRAMS: Final = (
    "kubelet", "kubeadm", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kube-proxy",
)  # fmt: skip
NODE_PROGRAMS: Final = (
    *(kubernetes(name, CONTROL_PLANE / "kubernetes") for name in _KUBERNETES_PROGRAMS),
    KUBECTL,
    Program("etcd", "go.etcd.io/etcd/server/v3", CONTROL_PLANE / "etcd"),
    Program("pause", ".", MODULES / "pause"),
    Program("podroutes", ".", MODULES / "podroutes"),
    Program("local-path-provisioner", LOCAL_PATH, CLIENTS),
    Program("coredns", "./coredns", CLIENTS),
)
MONITORING_PROGRAMS: Final = (
    # Debian's own lacks service discovery of Kubernetes.
    Program(
        "prometheus",
        f"{PROMETHEUS}/cmd/prometheus",
        CLIENTS,
        tags="remove_all_sd,enable_kubernetes_sd",
    ),
    *(
        Program(name, f"{PROMETHEUS_OPERATOR}/cmd/{folder}", CLIENTS)
        for name, folder in (
            ("prometheus-operator", "operator"),
            ("prometheus-config-reloader", "prometheus-config-reloader"),
        )
    ),
)
ALL: Final = (KIND, *NODE_PROGRAMS, *MONITORING_PROGRAMS)


def build(programs: Iterable[Program]) -> Mapping[str, Path]:
    """Return the files of `programs` by name; build missing ones and print the duration of each.

    Raises:
        Unavailable: Go is not installed.
        CommandFailed: a build failed; with the end of Go's output.
    """
    return {program.name: go.built(program) for program in programs}


def module_source(path: str) -> Path:
    """Return the folder of the Prometheus operator's Go module as downloaded: its own CRDs and roles are in it."""
    listed = subprocess.run(
        ["go", "list", "-m", "-f", "{{.Dir}}", path],
        cwd=CLIENTS,
        check=True,
        capture_output=True,
        text=True,
    )
    return Path(listed.stdout.strip())
