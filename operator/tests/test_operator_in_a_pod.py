"""The operator as in a pod: in-cluster configuration, read-only root, no HOME, an unprivileged user."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from operator_support import SYSTEM, WAIT_SECONDS, Admin, Operator, eventually

from marketfeed_operator.kinds import Kind

pytestmark = pytest.mark.integration

LEASE = Kind("coordination.k8s.io/v1", "Lease", "leases")
POD_NAME = "marketfeed-operator-0"
# As the kubelet and the container runtime set it up: the ServiceAccount's files, an empty /tmp, everything else
# read-only, and a user unknown to the machine.
CONTAINER = """
set -e
mount -t tmpfs tmpfs /run
mkdir -p /run/secrets/kubernetes.io/serviceaccount
cp "$GIVEN"/* /run/secrets/kubernetes.io/serviceaccount/
mount -o remount,ro /run
mount -t tmpfs tmpfs /tmp
mount -o remount,bind,ro /
cd /
exec unshare --user --map-user=65532 --map-group=65532 env -i $ENVIRONMENT "$@"
"""
NAMESPACES = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", CONTAINER, "container"]


@pytest.fixture
def container(api_server, token: str, tmp_path: Path) -> Iterator[Callable[..., Operator]]:
    """Runs a command as in a container; its log is outside, its port file in its own /tmp."""
    if shutil.which("unshare") is None:
        pytest.skip("unshare (util-linux) is not installed: it makes the container's namespaces")
    (tmp_path / "given").mkdir()
    (tmp_path / "given" / "token").write_text(token)
    (tmp_path / "given" / "namespace").write_text(SYSTEM)
    shutil.copy(api_server.ca_file, tmp_path / "given" / "ca.crt")
    server = urlsplit(api_server.server)
    inside = {
        "PATH": os.environ["PATH"], "KUBERNETES_SERVICE_HOST": server.hostname,
        "KUBERNETES_SERVICE_PORT": server.port, "OPERATOR_NAME": POD_NAME, "LOG_FORMAT": "json",
        "METRICS_HOST": "127.0.0.1", "METRICS_PORT": "0", "METRICS_PORT_FILE": "/tmp/port",  # noqa: S108
        "RESYNC_SECONDS": "2", "LEASE_SECONDS": "15", "LEASE_RETRY_SECONDS": "0.3",
    }  # fmt: skip
    started = []

    def run(*command: str) -> Operator:
        environment = {
            "PATH": os.environ["PATH"], "GIVEN": str(tmp_path / "given"),
            "ENVIRONMENT": " ".join(f"{name}={value}" for name, value in inside.items()),
        }  # fmt: skip
        with (tmp_path / "operator.log").open("wb") as log:
            process = subprocess.Popen([*NAMESPACES, *command], env=environment, stdout=log, stderr=log)
        started.append(process)
        # Its /tmp, through the kernel: the process is still the same.
        return Operator(process, tmp_path, port_file=Path(f"/proc/{process.pid}/root/tmp/port"))

    check = run(
        sys.executable, "-c",
        "import os, pathlib; print(os.getuid(), os.environ.get('HOME'), os.access('/', os.W_OK));"
        "print(pathlib.Path('/proc/self/status').read_text())",
    )  # fmt: skip
    if check.process.wait(WAIT_SECONDS) != 0:
        pytest.skip(f"this machine allows no namespaces: {check.log.read_text()[-300:]}")
    reported = check.log.read_text()
    assert reported.startswith("65532 None False"), reported
    assert "CapEff:\t0000000000000000" in reported
    try:
        yield run
    finally:
        for process in started:
            if process.poll() is None:
                process.kill()
            process.wait(WAIT_SECONDS)


async def test_operator_in_a_pod_leads_serves_and_stops(admin: Admin, container):
    operator = container(str(Path(sys.executable).parent / "marketfeed-operator"))
    operator.await_log("leading")
    lease = await admin.cluster.get(LEASE.path(SYSTEM, "marketfeed-operator"))
    assert lease["spec"]["holderIdentity"] == POD_NAME, "the namespace is the pod's own"
    await admin.feed("inside", symbols=["AA"])
    await eventually(lambda: admin.get("Deployment", "inside-shard-0"))

    assert operator.total("marketfeed_operator_namespace_available") == 1
    assert operator.stop(signal.SIGTERM) == 0, operator.log.read_text()[-2000:]
    lease = await admin.cluster.get(LEASE.path(SYSTEM, "marketfeed-operator"))
    assert not lease["spec"].get("holderIdentity")
