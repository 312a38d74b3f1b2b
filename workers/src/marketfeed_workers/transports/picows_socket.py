"""Sockets by picows: C speed, and frames handed over by the read that brought them."""

import asyncio
from http import HTTPStatus
from typing import cast

from picows import WSError, WSFrame, WSHandshakeError, WSListener, WSMsgType, WSTransport, ws_connect

from marketfeed_workers.errors import Unreachable, error_for_status
from marketfeed_workers.transports.socket import Closed, FrameSink, Socket

_NO_CLOSE_FRAME = Closed(1006, "")


class _PicowsSocket(WSListener):
    """A listener that gathers the frames of one read and hands them on together."""

    def __init__(self, sink: FrameSink) -> None:
        super().__init__()
        self.closed: asyncio.Future[Closed] = asyncio.get_running_loop().create_future()
        self._sink = sink
        self._frames: list[bytes] = []
        self._fragments: list[bytes] = []
        self._transport: WSTransport | None = None
        self._ending = _NO_CLOSE_FRAME

    def on_ws_connected(self, transport: WSTransport) -> None:
        self._transport = transport

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        kind = frame.msg_type
        if kind is WSMsgType.TEXT and frame.fin:
            self._frames.append(frame.get_payload_as_bytes())
        else:
            self._on_other_frame(transport, frame, kind)
        if frame.last_in_buffer and self._frames:
            frames, self._frames = self._frames, []
            self._sink.on_frames(frames)

    def _on_other_frame(self, transport: WSTransport, frame: WSFrame, kind: WSMsgType) -> None:
        # Pings are answered here and not by the library: its own answer returns before the listener is called, and
        # where a ping is the last frame of a read the frames before it would wait for the next read.
        match kind:
            case WSMsgType.PING:
                transport.send_pong(frame.get_payload_as_bytes())
                self._sink.on_control_frame()
            case WSMsgType.PONG:
                self._sink.on_control_frame()
            case WSMsgType.CLOSE:
                self._ending = Closed(int(frame.get_close_code().value), frame.get_close_reason() or "")
                transport.send_close(frame.get_close_code())
                transport.disconnect()
            case _:
                self._fragments.append(frame.get_payload_as_bytes())
                if frame.fin:
                    self._frames.append(b"".join(self._fragments))
                    self._fragments = []

    def on_ws_disconnected(self, transport: WSTransport) -> None:  # noqa: ARG002 - the library's signature
        if not self.closed.done():
            self.closed.set_result(self._ending)

    def send(self, text: str) -> None:
        self._connected().send(WSMsgType.TEXT, text.encode())

    def ping(self) -> None:
        self._connected().send_ping()

    def pause_reading(self) -> None:
        if not self.closed.done():
            self._connected().underlying_transport.pause_reading()

    def resume_reading(self) -> None:
        if not self.closed.done():
            self._connected().underlying_transport.resume_reading()

    def close(self) -> None:
        if not self.closed.done():
            self._connected().send_close()
            self._connected().disconnect()

    def abort(self) -> None:
        if not self.closed.done():
            self._connected().underlying_transport.abort()

    def _connected(self) -> WSTransport:
        if self._transport is None:
            raise RuntimeError("used before the connection was open")
        return self._transport


async def open_socket(url: str, sink: FrameSink, timeout_seconds: float) -> Socket:
    """Open `url`; see `OpenSocket`."""
    try:
        async with asyncio.timeout(timeout_seconds):
            _, listener = await ws_connect(
                lambda: _PicowsSocket(sink),
                url,
                websocket_handshake_timeout=timeout_seconds,
                enable_auto_pong=False,
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
    return cast(Socket, listener)
