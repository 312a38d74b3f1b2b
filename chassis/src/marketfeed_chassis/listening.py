"""Listening sockets: one address, or every IPv4 and IPv6 address of the machine."""

import socket
from typing import Final

ANY_ADDRESS: Final = "::"
"""Every address: IPv6 and IPv4 with one socket, IPv4 alone where the machine has no IPv6."""


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens on `port` of `host`; port 0 takes a free one.

    Raises:
        OSError: the address cannot be listened on.
    """
    if host == ANY_ADDRESS:
        return _listen_everywhere(port)
    # The first address only: with port 0 a name of two addresses would get two ports.
    family, _, _, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    return socket.create_server(address[:2], family=family)


def _listen_everywhere(port: int) -> socket.socket:
    # A kernel with IPv6 switched off still has the socket family in its headers, so ask by making one.
    if socket.has_dualstack_ipv6():
        return socket.create_server((ANY_ADDRESS, port), family=socket.AF_INET6, dualstack_ipv6=True)
    return socket.create_server(("0.0.0.0", port), family=socket.AF_INET)
