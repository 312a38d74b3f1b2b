"""The programs of a node image and of the tests, built once from pinned Go modules into the cache.

Each is one static file in a folder of the cache that is named by what it is built from, so a changed pin builds anew
and an unchanged one is never built twice.
"""

import hashlib
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[3]
MODULES: Final = Path(__file__).parent / "modules"
CONTROL_PLANE: Final = ROOT / "operator" / "tests" / "apiserver"
"""Go modules that the operator's tests pin already: the control plane there and here is the same."""


class Unavailable(Exception):
    """Something that this machine lacks; says what, and the way out."""


@dataclass(frozen=True)
class Program:
    """One program.

    Attributes:
        name: of the file.
        package: Go's path of its main package.
        module: folder of the Go module that pins it, or "" where `version` does.
        version: the package's version, for what needs no go.mod of ours.
        tags: Go's build tags.
    """

    name: str
    package: str
    module: Path | None = None
    version: str = ""
    tags: str = ""


def pinned(module: Path, path: str) -> str:
    """The version that the go.mod in `module` requires of `path`."""
    found = re.search(rf"^require {re.escape(path)} (\S+)$", (module / "go.mod").read_text(), re.M)
    assert found, f"{module}/go.mod does not require {path}"
    return found.group(1)


KUBERNETES_VERSION: Final = pinned(CONTROL_PLANE / "kubernetes", "k8s.io/kubernetes")
ETCD_VERSION: Final = pinned(CONTROL_PLANE / "etcd", "go.etcd.io/etcd/server/v3")
PROMETHEUS_OPERATOR: Final = "github.com/prometheus-operator/prometheus-operator"
PROMETHEUS_OPERATOR_VERSION: Final = pinned(MODULES / "prometheus-operator", PROMETHEUS_OPERATOR)
PROMETHEUS: Final = "github.com/prometheus/prometheus"
_PROMETHEUS_MODULE: Final = re.search(
    rf"^\t{PROMETHEUS} v0\.(\d)(\d\d)\.(\d+)$", (MODULES / "prometheus-operator" / "go.mod").read_text(), re.M
)
assert _PROMETHEUS_MODULE, f"modules/prometheus-operator/go.mod does not require {PROMETHEUS}"
PROMETHEUS_VERSION: Final = "v{}.{}.{}".format(*(int(part) for part in _PROMETHEUS_MODULE.groups()))
"""Release 3.13.1 is the Go module v0.313.1."""
KIND_VERSION: Final = "v0.32.0"
COREDNS_VERSION: Final = "v1.13.1"
LOCAL_PATH_VERSION: Final = "v0.0.30"  # the newest that is to be had as a Go module

KIND: Final = Program("kind", "sigs.k8s.io/kind", version=KIND_VERSION)
KUBECTL: Final = Program("kubectl", "k8s.io/kubernetes/cmd/kubectl", CONTROL_PLANE / "kubernetes")
NODE_PROGRAMS: Final = (
    *(
        Program(name, f"k8s.io/kubernetes/cmd/{name}", CONTROL_PLANE / "kubernetes")
        for name in ("kubelet", "kubeadm", "kube-apiserver", "kube-controller-manager", "kube-scheduler")
    ),
    Program("kube-proxy", "k8s.io/kubernetes/cmd/kube-proxy", CONTROL_PLANE / "kubernetes"),
    KUBECTL,
    Program("etcd", "go.etcd.io/etcd/server/v3", CONTROL_PLANE / "etcd"),
    Program("pause", ".", MODULES / "pause"),
    Program("podroutes", ".", MODULES / "podroutes"),
    Program(
        "local-path-provisioner", "github.com/rancher/local-path-provisioner", version=LOCAL_PATH_VERSION
    ),
    Program("coredns", "github.com/coredns/coredns", version=COREDNS_VERSION),
)
MONITORING_PROGRAMS: Final = (
    # Debian's own cannot discover pods: it is built without Kubernetes.
    Program(
        "prometheus",
        f"{PROMETHEUS}/cmd/prometheus",
        MODULES / "prometheus-operator",
        tags="remove_all_sd,enable_kubernetes_sd",
    ),
    *(
        Program(name, f"{PROMETHEUS_OPERATOR}/cmd/{folder}", MODULES / "prometheus-operator")
        for name, folder in (
            ("prometheus-operator", "operator"),
            ("prometheus-config-reloader", "prometheus-config-reloader"),
        )
    ),
)
ALL: Final = (KIND, *NODE_PROGRAMS, *MONITORING_PROGRAMS)


def cache_folder() -> Path:
    """Where everything that is built or fetched once is kept: MARKETFEED_CACHE, by default ~/.cache/marketfeed."""
    return Path(os.environ.get("MARKETFEED_CACHE") or Path.home() / ".cache" / "marketfeed")


def digest(parts: Iterable[str | bytes]) -> str:
    """A short name for what is made of `parts`."""
    whole = hashlib.sha256()
    for part in parts:
        whole.update(part.encode() if isinstance(part, str) else part)
        whole.update(b"\0")
    return whole.hexdigest()[:12]


def path_of(program: Program) -> Path:
    """Where `program` is, or would be, in the cache."""
    if program.module is None:
        key = program.version
    else:
        files = sorted(file for file in program.module.iterdir() if file.suffix in (".go", ".mod", ".sum"))
        key = digest(
            [_flags(program), program.tags, *(file.read_bytes() for file in files if file.name != "tools.go")]
        )
    return cache_folder() / "programs" / f"{program.name}-{key}" / program.name


def build(programs: Iterable[Program]) -> Mapping[str, Path]:
    """The files of `programs` by name; builds those that are missing and says how long each took.

    Raises:
        Unavailable: Go is not installed.
        CalledProcessError: a build failed; Go's own words are on the terminal.
    """
    found = {}
    for program in programs:
        file = path_of(program)
        if not file.exists() and not _adopted(program, file):
            _build(program, file)
        found[program.name] = file
    return found


def module_source(path: str) -> Path:
    """The folder of the Prometheus operator's Go module as it was fetched: its own CRDs and roles are in it."""
    told = subprocess.run(
        ["go", "list", "-m", "-f", "{{.Dir}}", path],
        cwd=MODULES / "prometheus-operator",
        check=True,
        capture_output=True,
        text=True,
    )
    return Path(told.stdout.strip())


def _adopted(program: Program, file: Path) -> bool:
    """Take what the operator's tests have built from the same module with the same flags."""
    built = cache_folder() / "apiserver" / f"{KUBERNETES_VERSION}-etcd-{ETCD_VERSION}" / program.name
    if program.module is None or program.module.parent != CONTROL_PLANE or not built.exists():
        return False
    file.parent.mkdir(parents=True, exist_ok=True)
    building = file.with_suffix(f".{os.getpid()}")
    shutil.copy2(built, building)
    building.rename(file)
    return True


def _build(program: Program, file: Path) -> None:
    if shutil.which("go") is None:
        raise Unavailable(f"Go is not installed: it builds {program.name} (Debian: golang, or go.dev/dl)")
    begun = time.monotonic()
    print(f"building {program.name} ...", flush=True)
    file.parent.mkdir(parents=True, exist_ok=True)
    building = file.parent / f".{os.getpid()}"
    building.mkdir()
    # Without cgo: a dynamic program does not start in an image that holds nothing else.
    environment = {**os.environ, "CGO_ENABLED": "0", "GOFLAGS": "-buildvcs=false"}
    try:
        if program.module is None:
            environment["GOBIN"] = str(building)
            command = ["go", "install", "-trimpath", "-ldflags", _flags(program)]
            subprocess.run([*command, f"{program.package}@{program.version}"], env=environment, check=True)
            made = building / program.name
        else:
            made = building / "made"
            command = ["go", "build", "-trimpath", "-tags", program.tags, "-ldflags", _flags(program)]
            command += ["-o", str(made), program.package]
            subprocess.run(command, cwd=program.module, env=environment, check=True)
        made.rename(file)
    finally:
        shutil.rmtree(building, ignore_errors=True)
    print(f"built {program.name} in {time.monotonic() - begun:.0f} s", flush=True)


def _flags(program: Program) -> str:
    if not program.package.startswith("k8s.io/kubernetes/"):
        return "-s -w"
    version = "k8s.io/component-base/version"
    major, minor = KUBERNETES_VERSION.removeprefix("v").split(".")[:2]
    return (
        f"-s -w -X {version}.gitVersion={KUBERNETES_VERSION} "
        f"-X {version}.gitMajor={major} -X {version}.gitMinor={minor}"
    )
