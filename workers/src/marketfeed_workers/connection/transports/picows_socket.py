"""Sockets by picows: fast, and the frames of one read are delivered together."""

import asyncio
import logging
from http import HTTPStatus
from typing import Final

from picows import (
    WSCloseCode,
    WSError,
    WSFrame,
    WSHandshakeError,
    WSListener,
    WSMsgType,
    WSProtocolError,
    WSTransport,
    ws_connect,
)

from marketfeed_workers.connection.transports.socket import (
    MAX_FRAGMENTS,
    MAX_MESSAGE_BYTES,
    NO_CLOSE_FRAME,
    TOO_BIG,
    Closed,
    FrameSink,
    Socket,
)
from marketfeed_workers.venues.errors import Unreachable, error_for_status

_TEXT: Final = WSMsgType.TEXT  # saves the lookup of an enum member per frame
MAX_FRAMES: Final = 512
"""Frames per batch: small enough for the processor's cache, large enough that the cost per batch is negligible."""
_NO_CODE: Final = 1005  # close frame without a code (RFC 6455, 7.1.5)

# At INFO the library logs each connection, which the session logs as well.
logging.getLogger("picows").setLevel(logging.WARNING)


class _PicowsSocket(WSListener):
    """Collects the frames of one read and delivers them in batches of at most MOST_FRAMES.

    One read can hold tens of thousands of frames, because the library's buffer grows with the backlog. Between batches
    the sink can process acknowledgements and pause reading.
    """

    closed: "asyncio.Future[Closed]"

    def __init__(self, sink: FrameSink) -> None:
        super().__init__()
        self._sink = sink
        self._frames: list[bytes] = []
        self._fragments: list[bytes] = []
        self._fragments_bytes = 0
        self._own_ending: Closed | None = None
        self._transport: WSTransport | None = None
        self._paused = False

    def on_ws_connected(self, transport: WSTransport) -> None:
        self._transport = transport
        self.closed = asyncio.create_task(self._ending(transport), name="picows-closed")

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        kind = frame.msg_type
        if kind is _TEXT and frame.fin and not frame.rsv1:
            self._frames.append(frame.get_payload_as_bytes())
        else:
            self._on_other_frame(transport, frame, kind)
        if frame.last_in_buffer or len(self._frames) >= MAX_FRAMES:
            self._deliver()

    def _deliver(self) -> None:
        while self._frames and not self._paused:
            batch = self._frames[:MAX_FRAMES]
            del self._frames[:MAX_FRAMES]
            try:
                self._sink.on_frames(batch)
            except BaseException:
                # The library passes the exception to `closed`, but continues to read for a moment.
                self.abort()
                raise

    def _on_other_frame(self, transport: WSTransport, frame: WSFrame, kind: WSMsgType) -> None:
        # The library's automatic pong returns before the listener is called: with a ping as the last frame of a read
        # the frames before it would wait for the next read. So the pong is sent here.
        match kind:
            case WSMsgType.PING:
                transport.send_pong(frame.get_payload_as_bytes())
                self._sink.on_control_frame(answered=True)
            case WSMsgType.PONG:
                self._sink.on_control_frame(answered=False)
            case WSMsgType.CLOSE:
                code = frame.get_close_code()
                # The library writes "no code" as code 0, which is a protocol error for the peer.
                transport.send_close(WSCloseCode.OK if code is WSCloseCode.NO_INFO else code)
                transport.disconnect()
            case _:
                self._gather(frame)

    def _gather(self, frame: WSFrame) -> None:
        """Add a fragment to its message. The library limits the size of frames only, and not their order."""
        if self._own_ending is not None:
            return
        payload = frame.get_payload_as_bytes()
        self._fragments_bytes += len(payload)
        if frame.rsv1:
            self._fail_connection(
                WSCloseCode.PROTOCOL_ERROR, "a compressed message without negotiated compression"
            )
        elif (frame.msg_type is WSMsgType.CONTINUATION) != bool(self._fragments):
            self._fail_connection(WSCloseCode.PROTOCOL_ERROR, "a fragment out of place")
        elif self._fragments_bytes > MAX_MESSAGE_BYTES or len(self._fragments) >= MAX_FRAGMENTS:
            reason = f"a message of more than {MAX_MESSAGE_BYTES} bytes or {MAX_FRAGMENTS} frames"
            self._fail_connection(WSCloseCode(TOO_BIG), reason)
        else:
            self._fragments.append(payload)
            if frame.fin:
                self._frames.append(b"".join(self._fragments))
                self._fragments, self._fragments_bytes = [], 0

    def _fail_connection(self, code: WSCloseCode, reason: str) -> None:
        self._fragments, self._fragments_bytes = [], 0
        self._own_ending = Closed(code.value, reason, by_us=True)
        transport = self._open_transport()
        transport.send_close(code)
        transport.disconnect()

    def send(self, text: str) -> None:
        self._open_transport().send(WSMsgType.TEXT, text.encode())

    def ping(self) -> None:
        self._open_transport().send_ping()

    def pause_reading(self) -> None:
        self._paused = True
        below = self._open_transport().underlying_transport
        if not below.is_closing():
            below.pause_reading()

    def resume_reading(self) -> None:
        self._paused = False
        self._deliver()
        below = self._open_transport().underlying_transport
        if not (self._paused or below.is_closing()):
            below.resume_reading()

    def close(self) -> None:
        transport = self._open_transport()
        transport.send_close(WSCloseCode.OK)
        transport.disconnect()

    def abort(self) -> None:
        self._own_ending = self._own_ending or Closed(NO_CLOSE_FRAME, "", by_us=True)
        self._open_transport().underlying_transport.abort()

    def _open_transport(self) -> WSTransport:
        if self._transport is None:
            raise RuntimeError("used before the connection was open")
        return self._transport

    async def _ending(self, transport: WSTransport) -> Closed:
        """Wait for the end and return how the connection ended; raise the sink's exception."""
        try:
            await transport.wait_disconnected()
            ending = _how_it_ended(transport)
        except WSProtocolError as error:  # protocol error of the peer; the library has closed the connection
            ending = Closed(int(error.code), str(error), by_us=True)
        ending = self._own_ending or ending
        while self._frames:  # deliver the remaining frames even while reading is paused
            self._paused = False
            self._deliver()
        return ending


def _how_it_ended(transport: WSTransport) -> Closed:
    handshake = transport.close_handshake
    if handshake is None or handshake.recv is None:
        return Closed(NO_CLOSE_FRAME, "")
    return Closed(int(handshake.recv.code.value) or _NO_CODE, handshake.recv.reason or "")


async def open_socket(url: str, sink: FrameSink, timeout_seconds: float) -> Socket:
    """Open `url`; see `OpenSocket`."""
    try:
        async with asyncio.timeout(timeout_seconds):
            _, listener = await ws_connect(
                lambda: _PicowsSocket(sink),
                url,
                websocket_handshake_timeout=timeout_seconds,
                enable_auto_pong=False,
                max_frame_size=MAX_MESSAGE_BYTES,
                max_redirects=0,
            )
    except WSHandshakeError as error:
        if error.response is not None and error.response.status != HTTPStatus.SWITCHING_PROTOCOLS:
            raise error_for_status(
                int(error.response.status), error.response.headers.get("Retry-After"), url
            ) from error
        raise Unreachable("handshake_failed", f"{url}: {error}") from error
    except TimeoutError as error:
        raise Unreachable("connect_timeout", f"{url}: no connection within {timeout_seconds:g} s") from error
    except (WSError, OSError) as error:
        raise Unreachable("connect_failed", f"{url}: {error}") from error
    if not isinstance(listener, _PicowsSocket):  # returned by the library when the peer closes at once
        raise Unreachable("handshake_failed", f"{url}: closed without a response to the handshake")
    return listener
