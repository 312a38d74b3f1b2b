"""Ports for what is told its port and cannot choose one by itself."""

import contextlib
import socket


def free_ports(count: int) -> list[int]:
    """Different loopback ports that nobody listens on now; somebody may by the time they are used."""
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [int(taken.getsockname()[1]) for taken in sockets]


def free_port() -> int:
    """One of them."""
    return free_ports(1)[0]
