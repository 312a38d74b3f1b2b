"""The container health check, run as Docker runs it."""

import os
import socket
import subprocess
import sys

import pytest
from prometheus_client import CollectorRegistry

from marketfeed_service import probe
from marketfeed_service.health import HealthServer, ProbeResult
from marketfeed_service.settings import ServiceSettings


class Service:
    ready = ProbeResult(ok=True)

    def livez(self) -> ProbeResult:
        return ProbeResult(ok=True)

    def readyz(self) -> ProbeResult:
        return self.ready

    def status(self) -> bytes:
        return b"{}"


def run(*arguments: str, **environment: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-m", "marketfeed_service.probe", *arguments],
        env={"PATH": os.environ["PATH"], **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stdout.strip()


@pytest.mark.parametrize(
    ("verdict", "expected"),
    [
        (ProbeResult(ok=True), (0, "ok")),
        (ProbeResult(ok=False, reason="no broker yet"), (1, "no broker yet")),
    ],
)
def test_probe_exit_code_is_readiness_at_the_metrics_port_and_prints_the_reason(
    verdict: ProbeResult, expected: tuple[int, str]
) -> None:
    service = Service()
    service.ready = verdict
    with HealthServer(service, CollectorRegistry(), host="127.0.0.1", port=0) as server:
        assert run(METRICS_PORT=str(server.port)) == expected


def test_probe_requests_another_url_when_given() -> None:
    with HealthServer(Service(), CollectorRegistry(), host="127.0.0.1", port=0) as server:
        assert run(f"http://127.0.0.1:{server.port}/status") == (0, "{}")
        code, _ = run(f"http://127.0.0.1:{server.port}/nowhere")
        assert code == 1


def test_probe_fails_if_the_service_does_not_listen() -> None:
    with socket.socket() as taken:  # bound and not listening: no other process can respond
        taken.bind(("127.0.0.1", 0))
        code, text = run(METRICS_PORT=str(taken.getsockname()[1]))
    assert code == 1
    assert "refused" in text


def test_probe_fails_if_the_service_does_not_respond() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        code, text = run(f"http://127.0.0.1:{silent.getsockname()[1]}/readyz", "--timeout-seconds", "0.2")
    assert code == 1
    assert "timed out" in text


def test_probe_rejects_an_invalid_url() -> None:
    assert run("ftp://x/") == (1, "'ftp://x/' is not an http:// address")


def test_probe_default_port_is_that_of_the_services() -> None:
    assert ServiceSettings.model_fields["metrics_port"].get_default() == int(probe.DEFAULT_PORT)
