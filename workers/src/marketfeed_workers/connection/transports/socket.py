"""Interface between a session and a WebSocket library."""

from asyncio import Future
from collections.abc import Awaitable, Callable
from typing import Final, NamedTuple, Protocol

MAX_MESSAGE_BYTES: Final = 10 * 2**20
"""Maximum size of a message; the venue's largest documented one has some hundred bytes."""
MAX_FRAGMENTS: Final = 1024
"""Maximum number of frames of one message: an endless row of empty ones would cost memory, too."""
NO_CLOSE_FRAME: Final = 1006
"""Close code of a connection that ended without a close frame (RFC 6455, 7.1.5)."""
TOO_BIG: Final = 1009


class Closed(NamedTuple):
    """How a connection ended: close code (1006: no close frame) and reason, and which side closed it."""

    code: int
    reason: str
    by_us: bool = False

    def __str__(self) -> str:
        """Return the text for logs and status."""
        if self.code == NO_CLOSE_FRAME:
            how = "aborted by this worker" if self.by_us else "lost without a close frame"
        else:
            how = f"closed by {'this worker' if self.by_us else 'the venue'} with {self.code}"
        return f"{how} {self.reason}".rstrip()


class FrameSink(Protocol):
    """Receiver of a socket's frames. Both calls come from the event loop's thread and must not block."""

    def on_frames(self, frames: list[bytes]) -> None:
        """Receive text frames of one read of the socket, or the next batch of them, in order."""

    def on_control_frame(self, *, answered: bool) -> None:
        """Receive a ping (which the socket has `answered`) or a pong: the peer is alive."""


class Socket(Protocol):
    """An open WebSocket connection. It responds to the peer's pings."""

    closed: "Future[Closed]"
    """Done when the connection has ended; raises the exception of a sink."""

    def send(self, text: str) -> None:
        """Send a text frame."""

    def ping(self) -> None:
        """Send a ping."""

    def pause_reading(self) -> None:
        """Stop delivering frames and reading, so that TCP flow control slows the venue down."""

    def resume_reading(self) -> None:
        """Deliver the frames that were kept, and resume reading."""

    def close(self) -> None:
        """Start the closing handshake; `closed` is done at its end."""

    def abort(self) -> None:
        """Close the connection at once, without a close frame."""


OpenSocket = Callable[[str, FrameSink, float], Awaitable[Socket]]
"""``open(url, sink, timeout_seconds)``. Raises Unreachable, Limited or Refused."""
