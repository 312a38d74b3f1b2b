"""The seam between a session and a WebSocket library."""

from asyncio import Future
from collections.abc import Awaitable, Callable
from typing import Final, NamedTuple, Protocol

MAX_MESSAGE_BYTES: Final = 10 * 2**20
"""A message of more is not read: the venue's largest documented one has some hundred bytes."""
MAX_FRAGMENTS: Final = 1024
"""Frames of one message; empty ones without end would cost memory, too."""
NO_CLOSE_FRAME: Final = 1006
"""What RFC 6455 (7.1.5) calls the code of a connection that ended without a close frame."""
TOO_BIG: Final = 1009


class Closed(NamedTuple):
    """How a connection ended: the close code and reason of whoever closed it (1006: without a close frame)."""

    code: int
    reason: str
    by_us: bool = False

    def __str__(self) -> str:
        """As a sentence for logs and status."""
        if self.code == NO_CLOSE_FRAME:
            how = "given up by this worker" if self.by_us else "lost without a close frame"
        else:
            how = f"closed by {'this worker' if self.by_us else 'the venue'} with {self.code}"
        return f"{how} {self.reason}".rstrip()


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
