"""The container's health check, asked as Docker asks it."""

import os
import socket
import subprocess
import sys

import pytest
from prometheus_client import CollectorRegistry

from marketfeed_chassis import probe
from marketfeed_chassis.health import HealthServer, Verdict
from marketfeed_chassis.settings import ServiceSettings


class Service:
    ready = Verdict(ok=True)

    def livez(self) -> Verdict:
        return Verdict(ok=True)

    def readyz(self) -> Verdict:
        return self.ready

    def status(self) -> bytes:
        return b"{}"


def run(*arguments: str, **environment: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-m", "marketfeed_chassis.probe", *arguments],
        env={"PATH": os.environ["PATH"], **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stdout.strip()


@pytest.mark.parametrize(
    ("verdict", "expected"),
    [(Verdict(ok=True), (0, "ok")), (Verdict(ok=False, reason="no broker yet"), (1, "no broker yet"))],
)
def test_readiness_at_the_metrics_port_is_the_exit_code_and_its_reason_is_printed(
    verdict: Verdict, expected: tuple[int, str]
) -> None:
    service = Service()
    service.ready = verdict
    with HealthServer(service, CollectorRegistry(), host="127.0.0.1", port=0) as server:
        assert run(METRICS_PORT=str(server.port)) == expected


def test_another_address_is_asked_when_given() -> None:
    with HealthServer(Service(), CollectorRegistry(), host="127.0.0.1", port=0) as server:
        assert run(f"http://127.0.0.1:{server.port}/status") == (0, "{}")
        code, _ = run(f"http://127.0.0.1:{server.port}/nowhere")
        assert code == 1


def test_a_service_that_does_not_listen_is_not_well() -> None:
    with socket.socket() as taken:  # bound and not listening: nobody else answers there
        taken.bind(("127.0.0.1", 0))
        code, text = run(METRICS_PORT=str(taken.getsockname()[1]))
    assert code == 1
    assert "refused" in text


def test_a_service_that_never_answers_is_not_well() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        code, text = run(f"http://127.0.0.1:{silent.getsockname()[1]}/readyz", "--timeout-seconds", "0.2")
    assert code == 1
    assert "timed out" in text


def test_what_is_no_address_is_named() -> None:
    assert run("ftp://x/") == (1, "'ftp://x/' is no http:// address")


def test_the_default_port_is_that_of_the_services() -> None:
    assert ServiceSettings.model_fields["metrics_port"].get_default() == int(probe.DEFAULT_PORT)
