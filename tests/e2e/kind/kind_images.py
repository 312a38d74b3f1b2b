"""Container images of the cluster's own components: one program each, from scratch, by ``docker build``."""

import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import kind_programs

from marketfeed_devtools import docker

REGISTRY: Final = "kind.local"
"""Registry name of local images: they are distinct from upstream images."""

ETCD_TAG: Final = f"{kind_programs.ETCD_VERSION.removeprefix('v')}-0"
PAUSE_TAG: Final = "3.10.1"  # the version that this Kubernetes' kubeadm requires
PODROUTES: Final = f"{REGISTRY}/podroutes:1"
LOCAL_PATH: Final = f"{REGISTRY}/local-path-provisioner:{kind_programs.LOCAL_PATH_VERSION}"
LOCAL_PATH_HELPER: Final = f"{REGISTRY}/local-path-helper:1"
PAUSE: Final = f"{REGISTRY}/pause:{PAUSE_TAG}"
COREDNS: Final = f"{REGISTRY}/coredns:{kind_programs.COREDNS_VERSION}"
PROMETHEUS_OPERATOR: Final = f"{REGISTRY}/prometheus-operator:{kind_programs.PROMETHEUS_OPERATOR_VERSION}"
PROMETHEUS: Final = f"{REGISTRY}/prometheus:{kind_programs.PROMETHEUS_VERSION}"
CONFIG_RELOADER: Final = f"{REGISTRY}/prometheus-config-reloader:{kind_programs.PROMETHEUS_OPERATOR_VERSION}"

_XTABLES: Final = "/usr/lib/x86_64-linux-gnu/xtables"
_PROXY_TOOLS: Final = ("/usr/sbin/xtables-nft-multi", "/usr/sbin/nft", "/usr/sbin/conntrack", "/usr/bin/kmod")
_IPTABLES_NAMES: Final = tuple(
    f"{family}tables{action}" for family in ("ip", "ip6") for action in ("", "-save", "-restore")
)


def build_node_images(programs: Mapping[str, Path], debian: Path, work: Path) -> list[str]:
    """Build the images that a node includes; return their names. `debian` is a Debian root, `work` an empty folder."""
    version = kind_programs.KUBERNETES_VERSION
    made = [
        _single(f"{REGISTRY}/{name}:{version}", programs[name], work, "/usr/local/bin")
        for name in ("kube-apiserver", "kube-controller-manager", "kube-scheduler")
    ]
    made.append(_single(f"{REGISTRY}/etcd:{ETCD_TAG}", programs["etcd"], work, "/usr/local/bin"))
    made.append(_single(COREDNS, programs["coredns"], work))
    made.append(_single(PAUSE, programs["pause"], work))
    made.append(_single(PODROUTES, programs["podroutes"], work))
    made.append(_single(LOCAL_PATH, programs["local-path-provisioner"], work, "/usr/local/bin"))
    made.append(_local_path_helper(debian, work))
    made.append(_proxy(f"{REGISTRY}/kube-proxy:{version}", programs["kube-proxy"], debian, work))
    return made


def build_monitoring_images(programs: Mapping[str, Path]) -> list[str]:
    """Build the images of Prometheus, its operator, and the config reloader that the operator adds to its pods."""
    with tempfile.TemporaryDirectory() as folder:
        return [
            _single(PROMETHEUS, programs["prometheus"], Path(folder), "/bin"),
            _single(PROMETHEUS_OPERATOR, programs["prometheus-operator"], Path(folder), "/bin"),
            _single(CONFIG_RELOADER, programs["prometheus-config-reloader"], Path(folder), "/bin"),
        ]


def _single(reference: str, program: Path, work: Path, folder: str = "") -> str:
    context = work / program.name
    root = context / f"root{folder}"
    root.mkdir(parents=True)
    shutil.copy2(program, root / program.name)
    _finish(reference, context, f'ENTRYPOINT ["{folder}/{program.name}"]')
    return reference


def _local_path_helper(debian: Path, work: Path) -> str:
    root = work / "local-path-helper" / "root" / "bin"
    root.mkdir(parents=True)
    for name in ("sh", "mkdir", "rm", "chmod"):
        shutil.copy2(debian / "usr/bin/busybox", root / name)
    _finish(LOCAL_PATH_HELPER, root.parents[1], "ENV PATH=/bin")
    return LOCAL_PATH_HELPER


def _proxy(reference: str, program: Path, debian: Path, work: Path) -> str:
    """Copy iptables, nft and conntrack, which kube-proxy runs, with their plugins and libraries, from Debian."""
    root = work / "kube-proxy" / "root"
    for folder in ("usr/sbin", "usr/bin", "usr/lib64", "usr/local/bin", "etc", "run", "tmp", "var/lib"):
        (root / folder).mkdir(parents=True)
    shutil.copytree(debian / _XTABLES.lstrip("/"), root / _XTABLES.lstrip("/"), symlinks=True)
    for name in ("bin", "sbin", "lib", "lib64"):
        (root / name).symlink_to(f"usr/{name}")
    plugins = [f"{_XTABLES}/{file.name}" for file in (debian / _XTABLES.lstrip("/")).glob("*.so")]
    linked = subprocess.run(
        ["chroot", debian, "ldd", *_PROXY_TOOLS, *plugins], check=True, capture_output=True, text=True
    ).stdout
    libraries = {word for word in linked.split() if word.startswith("/lib")}
    for name in (*_PROXY_TOOLS, *libraries):
        source = debian / name.lstrip("/")
        target = root / name.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.exists():
            shutil.copy2(source, target)
    for name in _IPTABLES_NAMES:
        (root / "usr/sbin" / name).symlink_to("xtables-nft-multi")
    (root / "usr/sbin/modprobe").symlink_to("../bin/kmod")
    for name in ("protocols", "services"):
        if (debian / "etc" / name).exists():
            shutil.copy2(debian / "etc" / name, root / "etc" / name)
    shutil.copy2(program, root / "usr/local/bin/kube-proxy")
    for check in (("/usr/sbin/iptables", "--version"), ("/usr/sbin/nft", "--version")):
        subprocess.run(["chroot", root, *check], check=True, capture_output=True)
    _finish(reference, root.parent, 'ENTRYPOINT ["/usr/local/bin/kube-proxy"]')
    return reference


def _finish(reference: str, context: Path, *lines: str) -> None:
    (context / "Dockerfile").write_text("\n".join(["FROM scratch", "COPY root/ /", *lines, ""]))
    docker.build(reference, context)
