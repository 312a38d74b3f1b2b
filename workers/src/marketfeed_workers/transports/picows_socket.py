"""Sockets by picows: C speed, and frames handed over by the read that brought them."""

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

from marketfeed_workers.errors import Unreachable, error_for_status
from marketfeed_workers.transports.socket import (
    MAX_FRAGMENTS,
    MAX_MESSAGE_BYTES,
    NO_CLOSE_FRAME,
    TOO_BIG,
    Closed,
    FrameSink,
    Socket,
)

_TEXT: Final = WSMsgType.TEXT  # a member of an enumeration is looked up at some cost, and this once a frame
MOST_FRAMES: Final = 512
"""Few enough that what becomes of them stays in a processor's cache, enough that a batch's own cost is small."""
_NO_CODE: Final = 1005  # what RFC 6455 (7.1.5) calls the code of a close frame that carries none

# At INFO the library tells of each connection and its buffer sizes; the session tells of it in our words.
logging.getLogger("picows").setLevel(logging.WARNING)


class _PicowsSocket(WSListener):
    """A listener that gathers the frames of one read and hands them on together, in batches of at most MOST_FRAMES.

    A read can bring tens of thousands, for the library's buffer grows with whatever has piled up in the kernel's. In
    batches acknowledgements are taken in on the way, and the sink can hold the rest back.
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
        self._held_back = False

    def on_ws_connected(self, transport: WSTransport) -> None:
        self._transport = transport
        self.closed = asyncio.create_task(self._ending(transport), name="picows-closed")

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        kind = frame.msg_type
        if kind is _TEXT and frame.fin and not frame.rsv1:
            self._frames.append(frame.get_payload_as_bytes())
        else:
            self._on_other_frame(transport, frame, kind)
        if frame.last_in_buffer or len(self._frames) >= MOST_FRAMES:
            self._hand_on()

    def _hand_on(self) -> None:
        while self._frames and not self._held_back:
            batch = self._frames[:MOST_FRAMES]
            del self._frames[:MOST_FRAMES]
            try:
                self._sink.on_frames(batch)
            except BaseException:
                # The library hands the error to `closed`, but would read on for a moment and come here again.
                self.abort()
                raise

    def _on_other_frame(self, transport: WSTransport, frame: WSFrame, kind: WSMsgType) -> None:
        # Pings are answered here and not by the library: its own answer returns before the listener is called, and
        # where a ping is the last frame of a read the frames before it would wait for the next read.
        match kind:
            case WSMsgType.PING:
                transport.send_pong(frame.get_payload_as_bytes())
                self._sink.on_control_frame(answered=True)
            case WSMsgType.PONG:
                self._sink.on_control_frame(answered=False)
            case WSMsgType.CLOSE:
                code = frame.get_close_code()
                # The library would write "no code" as the code 0, which a peer takes for a breach of the protocol.
                transport.send_close(WSCloseCode.OK if code is WSCloseCode.NO_INFO else code)
                transport.disconnect()
            case _:
                self._gather(frame)

    def _gather(self, frame: WSFrame) -> None:
        """A fragment of a message; the library bounds a frame and not a message, and does not ask where one begins."""
        if self._own_ending is not None:
            return
        payload = frame.get_payload_as_bytes()
        self._fragments_bytes += len(payload)
        if frame.rsv1:
            self._break_off(WSCloseCode.PROTOCOL_ERROR, "a compressed message, which was not agreed to")
        elif (frame.msg_type is WSMsgType.CONTINUATION) != bool(self._fragments):
            self._break_off(WSCloseCode.PROTOCOL_ERROR, "a fragment out of place")
        elif self._fragments_bytes > MAX_MESSAGE_BYTES or len(self._fragments) >= MAX_FRAGMENTS:
            reason = f"a message of more than {MAX_MESSAGE_BYTES} bytes or {MAX_FRAGMENTS} frames"
            self._break_off(WSCloseCode(TOO_BIG), reason)
        else:
            self._fragments.append(payload)
            if frame.fin:
                self._frames.append(b"".join(self._fragments))
                self._fragments, self._fragments_bytes = [], 0

    def _break_off(self, code: WSCloseCode, reason: str) -> None:
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
        self._held_back = True
        below = self._open_transport().underlying_transport
        if not below.is_closing():
            below.pause_reading()

    def resume_reading(self) -> None:
        self._held_back = False
        self._hand_on()
        below = self._open_transport().underlying_transport
        if not (self._held_back or below.is_closing()):
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
        """How the connection ended; raises what the sink raised."""
        try:
            await transport.wait_disconnected()
            ending = _how_it_ended(transport)
        except WSProtocolError as error:  # the peer broke the protocol, and the library the connection
            ending = Closed(int(error.code), str(error), by_us=True)
        ending = self._own_ending or ending
        while self._frames:  # the end comes first, the sink's wish to hold back second
            self._held_back = False
            self._hand_on()
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
    if not isinstance(listener, _PicowsSocket):  # what the library returns when the peer hangs up at once
        raise Unreachable("handshake_failed", f"{url}: closed without an answer to the handshake")
    return listener
