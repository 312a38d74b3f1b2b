"""Free ports for programs that cannot select one by themselves."""

import contextlib
import socket


def free_ports(count: int) -> list[int]:
    """Return distinct loopback ports that are free now; another process may bind them before they are used."""
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [int(taken.getsockname()[1]) for taken in sockets]


def free_port() -> int:
    """Return one free loopback port, see `free_ports`."""
    return free_ports(1)[0]
