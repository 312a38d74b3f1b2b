"""Listening sockets: every address is IPv4 and IPv6, or IPv4 without IPv6 support."""

import socket

import pytest

from marketfeed_service.listening import ANY_ADDRESS, listen


def reached(host: str, port: int) -> bool:
    with socket.create_connection((host, port), timeout=30):
        return True


def test_listening_on_any_address_is_reached_over_ipv4_and_ipv6() -> None:
    with listen(ANY_ADDRESS, 0) as listening:
        port = listening.getsockname()[1]
        assert reached("127.0.0.1", port)
        if socket.has_dualstack_ipv6():
            assert reached("::1", port)


def test_listening_on_any_address_works_without_ipv6(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "has_dualstack_ipv6", lambda: False)
    with listen(ANY_ADDRESS, 0) as listening:
        assert listening.family == socket.AF_INET
        assert reached("127.0.0.1", listening.getsockname()[1])


def test_listening_on_one_address_is_not_reached_on_others() -> None:
    if not socket.has_dualstack_ipv6():
        pytest.skip("this machine has no IPv6")
    with listen("::1", 0) as listening, pytest.raises(OSError, match="refused"):
        reached("127.0.0.1", listening.getsockname()[1])
