"""A real Kubernetes API server without nodes: etcd, kube-apiserver and kube-controller-manager on free loopback
ports.

Its programs come from the folder KUBEBUILDER_ASSETS, otherwise from the cache (``marketfeed_devtools.cache``), where
they are built once from the Go modules pinned in ``apiserver/`` (about ten minutes on two cores). With
USE_EXISTING_CLUSTER=true nothing is started and the cluster of KUBECONFIG is used.
"""

import contextlib
import csv
import http.client
import os
import shutil
import ssl
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import yaml

from marketfeed_devtools import cache, go
from marketfeed_devtools.ports import free_ports
from marketfeed_devtools.programs import Unavailable, require, say

HERE: Final = Path(__file__).parent
ETCD: Final = "go.etcd.io/etcd/server/v3"
PROGRAMS: Final = ("etcd", "kube-apiserver", "kube-controller-manager")
ADMIN_TOKEN: Final = "admin-of-a-throwaway-api-server"
MANAGER_TOKEN: Final = "controller-manager-of-a-throwaway-api-server"
START_SECONDS: Final = 180.0


@dataclass(frozen=True)
class ControlPlane:
    """A running API server.

    Attributes:
        server: its URL.
        ca_file: PEM file of the CA of its certificate.
        kubeconfig: kubeconfig of an administrator.
        programs: folder of its programs, including kubectl if built; None for an existing cluster.
    """

    server: str
    ca_file: Path
    kubeconfig: Path
    programs: Path | None

    def kubeconfig_for(
        self, file: Path, token: str, *, server: str = "", ca_file: Path | None = None
    ) -> Path:
        """Write a kubeconfig for `token`, with `server` as the address if given, for example a proxy's."""
        return _write_kubeconfig(file, server or self.server, ca_file or self.ca_file, token)


@contextlib.contextmanager
def control_plane(folder: Path, *, controller_qps: int = 500) -> Iterator[ControlPlane]:
    """Run an API server for the block, with state and logs in `folder`.

    Args:
        controller_qps: client rate limit of each controller. The default of Kubernetes is 20, with which tests would
            mostly wait for rate-limited controllers.

    Raises:
        Unavailable: the programs are missing and cannot be built here.
    """
    if os.environ.get("USE_EXISTING_CLUSTER", "").lower() == "true":
        yield _existing()
        return
    programs = find_programs()
    with contextlib.ExitStack() as running:
        yield _start(programs, folder, controller_qps, running)


def _existing() -> ControlPlane:
    file = Path(os.environ.get("KUBECONFIG") or Path.home() / ".kube" / "config")
    if not file.exists():
        raise Unavailable(f"USE_EXISTING_CLUSTER=true, and there is no kubeconfig {file}")
    cluster = yaml.safe_load(file.read_text())["clusters"][0]["cluster"]
    return ControlPlane(cluster["server"], Path(cluster.get("certificate-authority", "")), file, None)


def find_programs() -> Path:
    """Return the folder with the control plane's programs, built first if necessary.

    Raises:
        Unavailable: KUBEBUILDER_ASSETS lacks one, or Go is not installed.
        CommandFailed: a build failed.
    """
    if assets := os.environ.get("KUBEBUILDER_ASSETS"):
        folder = Path(assets)
        missing = [program for program in PROGRAMS if not (folder / program).exists()]
        if missing:
            raise Unavailable(f"KUBEBUILDER_ASSETS={assets} has no {', '.join(missing)}")
        return folder
    kubernetes, etcd = HERE / "apiserver" / "kubernetes", HERE / "apiserver" / "etcd"
    programs = [
        go.Program("etcd", ETCD, etcd),
        *(go.kubernetes(name, kubernetes) for name in (*PROGRAMS[1:], "kubectl")),
    ]

    def gather(folder: Path) -> None:
        require("go", "builds the API server (Debian: golang, or go.dev/dl); or set KUBEBUILDER_ASSETS")
        say("building the Kubernetes control plane once (about ten minutes on two cores)")
        for program in programs:
            shutil.copy2(go.built(program), folder)

    versions = f"{go.pinned(kubernetes, 'k8s.io/kubernetes')}-etcd-{go.pinned(etcd, ETCD)}"
    return cache.once(f"apiserver/{versions}", gather, [program.name for program in programs])


def _start(programs: Path, folder: Path, controller_qps: int, running: contextlib.ExitStack) -> ControlPlane:
    store, peer, port = free_ports(3)
    server, pki = f"https://127.0.0.1:{port}", folder / "pki"
    pki.mkdir(parents=True)
    with (folder / "tokens.csv").open("w", newline="") as tokens:
        csv.writer(tokens).writerows(
            [
                [ADMIN_TOKEN, "admin", "1", "system:masters"],
                [MANAGER_TOKEN, "system:kube-controller-manager", "2"],
            ]
        )
    _run(running, folder, [
        programs / "etcd", "--data-dir", folder / "etcd", "--unsafe-no-fsync",
        "--listen-client-urls", f"http://127.0.0.1:{store}", "--advertise-client-urls", f"http://127.0.0.1:{store}",
        "--listen-peer-urls", f"http://127.0.0.1:{peer}", "--initial-advertise-peer-urls", f"http://127.0.0.1:{peer}",
        "--initial-cluster", f"default=http://127.0.0.1:{peer}",
    ])  # fmt: skip
    # The self-signed certificate of the API server serves as its CA, and its key signs the tokens of ServiceAccounts:
    # no other key pair is needed.
    key = pki / "apiserver.key"
    api_server = _run(running, folder, [
        programs / "kube-apiserver", "--etcd-servers", f"http://127.0.0.1:{store}",
        "--bind-address", "127.0.0.1", "--secure-port", port, "--cert-dir", pki,
        "--token-auth-file", folder / "tokens.csv", "--authorization-mode", "RBAC",
        "--service-account-key-file", key, "--service-account-signing-key-file", key,
        "--service-account-issuer", "https://kubernetes.default.svc", "--service-cluster-ip-range", "10.96.0.0/16",
    ])  # fmt: skip
    plane = ControlPlane(
        server,
        pki / "apiserver.crt",
        _write_kubeconfig(folder / "admin.kubeconfig", server, pki / "apiserver.crt", ADMIN_TOKEN),
        programs,
    )
    _await_ready(plane, api_server, folder)
    _run(running, folder, [
        programs / "kube-controller-manager", "--leader-elect=false", "--use-service-account-credentials",
        "--kubeconfig", _write_kubeconfig(folder / "manager.kubeconfig", server, plane.ca_file, MANAGER_TOKEN),
        "--service-account-private-key-file", key, "--root-ca-file", plane.ca_file, "--secure-port", "0",
        "--kube-api-qps", controller_qps, "--kube-api-burst", 2 * controller_qps,
    ])  # fmt: skip
    return plane


def _run(running: contextlib.ExitStack, folder: Path, command: Sequence[object]) -> subprocess.Popen[bytes]:
    words = [str(word) for word in command]
    log = running.enter_context((folder / f"{Path(words[0]).name}.log").open("wb"))
    process = subprocess.Popen(words, stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)
    running.callback(_end, process)
    return process


def _end(process: subprocess.Popen[bytes]) -> None:
    # Nothing outlives the tests, so nothing is shut down gracefully.
    process.kill()
    process.wait()


def _write_kubeconfig(file: Path, server: str, ca_file: Path, token: str) -> Path:
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "test", "cluster": {"server": server, "certificate-authority": str(ca_file)}}],
        "users": [{"name": "test", "user": {"token": token}}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
        "current-context": "test",
    }
    file.write_text(yaml.safe_dump(config))
    return file


def _await_ready(plane: ControlPlane, process: subprocess.Popen[bytes], folder: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            tail = (folder / "kube-apiserver.log").read_text(errors="replace")[-2000:]
            raise AssertionError(f"kube-apiserver exited at startup:\n{tail}")
        with contextlib.suppress(OSError, http.client.HTTPException):
            trust = ssl.create_default_context(cafile=str(plane.ca_file))
            address, port = plane.server.removeprefix("https://").split(":")
            asking = http.client.HTTPSConnection(address, int(port), context=trust, timeout=2)
            with contextlib.closing(asking):
                asking.request("GET", "/readyz", headers={"Authorization": f"Bearer {ADMIN_TOKEN}"})
                if asking.getresponse().status == http.HTTPStatus.OK:
                    return
        time.sleep(0.1)
    raise AssertionError(f"kube-apiserver was not ready within {START_SECONDS:g} s; its log is in {folder}")
