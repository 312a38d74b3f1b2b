"""The health server, tested over HTTP on a free port."""

import http.client
import json
import socket
import threading
import time
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, Counter
from prometheus_client.parser import text_string_to_metric_families

from marketfeed_service.errors import StartupError
from marketfeed_service.health import HealthServer, ProbeResult


class Service:
    """A service whose health is set by the test."""

    def __init__(self) -> None:
        self.live = ProbeResult(ok=True)
        self.ready = ProbeResult(ok=True)
        self.release = threading.Event()
        self.asked = threading.Event()
        self.stuck = False
        self.broken = False

    def livez(self) -> ProbeResult:
        if self.stuck:
            self.asked.set()
            self.release.wait(60)
        return self.live

    def readyz(self) -> ProbeResult:
        return self.ready

    def status(self) -> bytes:
        if self.broken:
            raise RuntimeError("dictionary changed size during iteration")
        return json.dumps({"ready": self.ready.ok}).encode()


@pytest.fixture
def service() -> Service:
    return Service()


def serve(service: Service, *, host: str = "127.0.0.1", port: int = 0) -> HealthServer:
    registry = CollectorRegistry()
    Counter("events", "what happened", ["shard"], registry=registry).labels("0").inc(3)
    return HealthServer(service, registry, host=host, port=port)


def get(
    server: HealthServer, path: str, *, method: str = "GET", host: str = "127.0.0.1"
) -> tuple[int, str, str]:
    connection = http.client.HTTPConnection(host, server.port, timeout=30)
    try:
        connection.request(method, path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode(), answer.getheader("Content-Type", "")
    finally:
        connection.close()


def test_probes_return_200_and_ok_while_the_service_is_healthy(service: Service) -> None:
    service.live = ProbeResult(ok=True, reason="turned 0 s ago")
    with serve(service) as server:
        assert get(server, "/livez")[:2] == (200, "ok\n")
        assert get(server, "/readyz")[:2] == (200, "ok\n")


@pytest.mark.parametrize(("path", "field"), [("/livez", "live"), ("/readyz", "ready")])
def test_probes_return_503_with_the_reason_and_recover(service: Service, path: str, field: str) -> None:
    with serve(service) as server:
        setattr(service, field, ProbeResult(ok=False, reason="no first datum yet: BTCUSDT"))
        assert get(server, path)[:2] == (503, "no first datum yet: BTCUSDT\n")
        setattr(service, field, ProbeResult(ok=True))
        assert get(server, path)[0] == 200


def test_status_returns_the_json_of_the_service(service: Service) -> None:
    with serve(service) as server:
        code, body, kind = get(server, "/status")
    assert (code, json.loads(body), kind.split(";")[0]) == (200, {"ready": True}, "application/json")


def test_metrics_are_in_the_prometheus_text_format(service: Service) -> None:
    with serve(service) as server:
        code, body, kind = get(server, "/metrics")
    (events,) = [family for family in text_string_to_metric_families(body) if family.name == "events"]
    assert (code, kind.startswith("text/plain; version=")) == (200, True)
    assert {(s.name, s.labels["shard"], s.value) for s in events.samples if s.name == "events_total"} == {
        ("events_total", "0", 3.0)
    }


def test_health_server_rejects_other_paths_and_methods(service: Service) -> None:
    with serve(service) as server:
        assert get(server, "/")[0] == 404
        assert get(server, "/livez", method="POST")[0] == 405


def test_status_that_raises_is_a_response_500_and_the_server_continues(
    service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    with serve(service) as server:
        service.broken = True
        assert get(server, "/status")[0] == 500
        service.broken = False
        assert get(server, "/status")[0] == 200
    assert "dictionary changed size" in caplog.text


def test_port_file_contains_the_port_and_leaves_no_temporary_file(service: Service, tmp_path: Path) -> None:
    file = tmp_path / "port"
    file.write_text("older\n")
    with serve(service) as server:
        server.write_port(str(file))
        assert file.read_text() == f"{server.port}\n"
        assert server.port > 0
    assert list(tmp_path.iterdir()) == [file]


def test_port_file_is_not_written_without_a_name(
    service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with serve(service) as server:
        server.write_port("")
    assert list(tmp_path.iterdir()) == []


def test_port_file_that_cannot_be_written_is_in_the_error(service: Service, tmp_path: Path) -> None:
    file = str(tmp_path / "none" / "port")
    with serve(service) as server, pytest.raises(StartupError, match=r"METRICS_PORT_FILE=.*No such file"):
        server.write_port(file)


def test_port_in_use_is_in_the_error_with_the_remedy(service: Service) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with (
            pytest.raises(StartupError, match=f"METRICS_PORT={port}.*in use.*METRICS_PORT=0") as caught,
            serve(service, port=port),
        ):
            pytest.fail("entered without a port")
    assert isinstance(caught.value.__cause__, OSError)
    assert "health" not in [thread.name for thread in threading.enumerate()]


@pytest.mark.parametrize("host", ["no.such.host.invalid", "192.0.2.1"])
def test_address_of_another_host_is_in_the_error(service: Service, host: str) -> None:
    with pytest.raises(StartupError, match=f"METRICS_HOST='{host}'"), serve(service, host=host):
        pytest.fail("entered without a port")


@pytest.mark.parametrize("host", ["localhost", "0.0.0.0", "::1", "::"])
def test_health_server_listens_on_a_name_and_on_every_address(service: Service, host: str) -> None:
    if ":" in host and not socket.has_dualstack_ipv6():
        pytest.skip("this machine has no IPv6")
    peer = "::1" if host == "::1" else "localhost" if host == "localhost" else "127.0.0.1"
    with serve(service, host=host) as server:
        assert get(server, "/livez", host=peer)[0] == 200


def test_health_server_frees_port_and_thread_at_exit(service: Service) -> None:
    with serve(service) as server:
        idle = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
        idle.request("GET", "/livez")
        idle.getresponse().read()
        thread = server._thread
    idle.close()
    assert not thread.is_alive()
    with serve(service, port=server.port) as again:
        assert get(again, "/livez")[0] == 200


def test_health_server_stops_after_an_error_in_the_block(service: Service) -> None:
    server = serve(service)
    with pytest.raises(ZeroDivisionError), server:
        _ = 1 / 0
    assert not server._thread.is_alive()


def test_health_server_that_is_never_entered_holds_no_port(service: Service) -> None:
    before = threading.active_count()
    serve(service)
    assert threading.active_count() == before


def test_health_server_stops_while_a_probe_hangs(service: Service) -> None:
    service.stuck = True
    with serve(service) as server:
        asking = socket.create_connection(("127.0.0.1", server.port), timeout=30)
        asking.sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
        assert service.asked.wait(30)
        begun = time.monotonic()
    assert time.monotonic() - begun < 30  # what the probe would wait for is twice that
    service.release.set()
    server._thread.join(30)
    asking.close()
    assert not server._thread.is_alive()
