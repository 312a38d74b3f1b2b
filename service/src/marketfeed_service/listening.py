"""Listening sockets: one address, or every IPv4 and IPv6 address of the machine."""

import socket
from typing import Final

ANY_ADDRESS: Final = "::"
"""Every address: IPv6 and IPv4 by one socket; IPv4 only if the machine has no IPv6."""


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens on `port` of `host`; port 0 selects a free port.

    Raises:
        OSError: listening on the address failed.
    """
    if host == ANY_ADDRESS:
        return _listen_everywhere(port)
    # The first address only: with port 0, a name with two addresses would get two ports.
    family, _, _, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    return socket.create_server(address[:2], family=family)


def _listen_everywhere(port: int) -> socket.socket:
    # With IPv6 disabled in the kernel the constant AF_INET6 still exists: the check creates a socket.
    if socket.has_dualstack_ipv6():
        return socket.create_server((ANY_ADDRESS, port), family=socket.AF_INET6, dualstack_ipv6=True)
    return socket.create_server(("0.0.0.0", port), family=socket.AF_INET)
