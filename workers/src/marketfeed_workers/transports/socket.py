"""The seam between a session and a WebSocket library."""

from asyncio import Future
from collections.abc import Awaitable, Callable
from typing import NamedTuple, Protocol


class Closed(NamedTuple):
    """How a connection ended: the close code and reason, as far as the peer told them (1006: it did not)."""

    code: int
    reason: str


class FrameSink(Protocol):
    """Whoever reads a socket. Both calls come from the event loop's thread and must not wait."""

    def on_frames(self, frames: list[bytes]) -> None:
        """Text frames that one read of the socket delivered, or the next batch of them, in order."""

    def on_control_frame(self, *, answered: bool) -> None:
        """A ping (which the socket has `answered`) or a pong came: the peer is alive though it sends no data."""


class Socket(Protocol):
    """An open WebSocket connection. Pings of the peer are answered by it."""

    closed: "Future[Closed]"
    """Done when the connection has ended, however it ended; raises what a sink raised."""

    def send(self, text: str) -> None:
        """Send a text frame."""

    def ping(self) -> None:
        """Send a ping."""

    def pause_reading(self) -> None:
        """Hand on nothing more; leave what comes in the kernel's buffers, so that the venue feels the back-pressure."""

    def resume_reading(self) -> None:
        """Hand on what was held back, and read again."""

    def close(self) -> None:
        """Start to close; `closed` tells when it is done."""

    def abort(self) -> None:
        """Drop the connection at once."""


OpenSocket = Callable[[str, FrameSink, float], Awaitable[Socket]]
"""``open(url, sink, timeout_seconds)``; raises Unreachable, Limited or Refused."""
