"""An HTTP server with hostile responses, reproducible by seed.

For tests of HTTP clients: whatever the response, a client returns a value or raises the error that it documents.
"""

import asyncio
import contextlib
import functools
import gzip
import json
import random
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, Final

MIB: Final = 2**20
AT_ONCE: Final = 16
_SCALARS: Final[tuple[Any, ...]] = (
    None, True, False, 0, -1, 1, 2**31, 2**53, -(2**63), 2**63, 2**64, 10**40, 0.5, 1e308, "", "x", "\x00",
    "\x1b[31mred", "\n", "\u202e", "\ud800", "é", "币安", "9" * 5000, "TRADING", "USDT", "BTCUSDT", [], {},
)  # fmt: skip


@functools.cache
def _bomb() -> bytes:
    return gzip.compress(b"[" + b" " * 100 * MIB + b"]", 1)


class Hostile:
    """Generator and server of hostile responses.

    Args:
        samples: JSON documents that the client accepts; most responses are mutations of them.

    Attributes:
        redirected: requests to the target of a redirect; the clients make none.
    """

    def __init__(self, rng: random.Random, samples: Sequence[Any]) -> None:
        self._rng = rng
        self._samples = samples
        self.redirected = 0

    def body(self) -> bytes:
        """Return a body that may or may not be JSON."""
        make: Callable[[], bytes] = self._rng.choice(
            [self._changed] * 6 + [self._noise, self._deep, self._large]
        )
        return make()

    def _changed(self) -> bytes:
        value = json.loads(json.dumps(self._rng.choice(self._samples)))
        for _ in range(self._rng.randint(1, 4)):
            value = self._change(value)
        text = json.dumps(value, ensure_ascii=self._rng.random() < 0.5).encode(errors="surrogatepass")
        if self._rng.random() < 0.3:
            text = self._bent(text)
        return text

    def _change(self, value: Any) -> Any:
        """Return the value with one element replaced, added or removed, at any depth."""
        if isinstance(value, dict) and value and self._rng.random() < 0.9:
            key = self._rng.choice(list(value))
            what = self._rng.random()
            if what < 0.1:
                return {name: each for name, each in value.items() if name != key}
            if what < 0.2:
                return {**value, str(self._scalar()): self._scalar()}
            return {**value, key: self._change(value[key])}
        if isinstance(value, list) and value and self._rng.random() < 0.9:
            place = self._rng.randrange(len(value))
            return [*value[:place], self._change(value[place]), *value[place + self._rng.randint(0, 1) :]]
        return self._scalar()

    def _scalar(self) -> Any:
        return self._rng.choice(_SCALARS)

    def _bent(self, text: bytes) -> bytes:
        """Return the bytes with some of them changed, removed or doubled."""
        if not text:
            return text
        place = self._rng.randrange(len(text))
        return self._rng.choice([
            text[:place],
            text[:place] + self._rng.randbytes(self._rng.randint(1, 4)) + text[place + 1 :],
            text[:place] + b"\xff" + text[place:],
            text + text,
            b"\xef\xbb\xbf" + text,
            text.decode(errors="replace").encode("utf-16"),
        ])  # fmt: skip

    def _noise(self) -> bytes:
        return self._rng.randbytes(self._rng.choice([0, 1, 100, 10_000]))

    def _deep(self) -> bytes:
        depth = self._rng.choice([100, 990, 1_100, 5_000, 100_000])
        opening, closing = self._rng.choice([(b"[", b"]"), (b'{"a":', b"}")])
        inner = opening * depth + b"1" + closing * depth
        return self._rng.choice([inner, b'{"symbols":' + inner + b"}", b'{"x":' + inner + b',"symbols":[]}'])

    def _large(self) -> bytes:
        piece = self._rng.choice([b"[],", b"{},", b"0,", b'"",', b"null,", b'{"a":{}},'])
        return b'{"symbols":[' + piece * (self._rng.choice([1_000, MIB]) // len(piece)) + b"0]}"

    def response(self) -> bytes:
        """Return a whole HTTP response, after which the connection is closed."""
        body, headers = self.body(), [b"Content-Type: application/json"]
        status = self._rng.choice(
            [b"200 OK"] * 9 + [b"500 Oops", b"204 No Content", b"302 Found", b"301 Moved", b"999 ?"]
        )
        if status.startswith(b"30"):
            headers.append(b"Location: /redirected")
        squeezed = self._rng.random()
        if squeezed < 0.1:
            # Sometimes a decompression bomb: kilobytes that decompress to many megabytes.
            body = _bomb() if self._rng.random() < 0.01 else gzip.compress(body, 1)
            headers.append(b"Content-Encoding: gzip")
        elif squeezed < 0.15:
            headers.append(
                b"Content-Encoding: " + self._rng.choice([b"gzip", b"deflate", b"br", b"zstd", b"nonsense"])
            )
        elif squeezed < 0.2:
            body = zlib.compress(body)[: self._rng.randint(1, 100)]
            headers.append(b"Content-Encoding: deflate")
        length = self._rng.random()
        if length < 0.8:
            headers.append(b"Content-Length: %d" % len(body))
        elif length < 0.9:
            wrong = self._rng.choice(
                [b"0", b"1", b"%d" % (len(body) + 7), b"-1", b"99999999999999999999", b"x"]
            )
            headers.append(b"Content-Length: " + wrong)
        elif length < 0.95:
            headers.append(b"Transfer-Encoding: chunked")
            body = (
                b"%x\r\n" % len(body) + body + self._rng.choice([b"\r\n0\r\n\r\n", b"\r\n", b"zz\r\n", b""])
            )
        head = b"HTTP/1.1 " + status + b"\r\n" + b"\r\n".join([*headers, b"Connection: close"]) + b"\r\n\r\n"
        whole = head + body
        return self._bent(whole) if self._rng.random() < 0.02 else whole

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[str]:
        """Serve on a free loopback port; yield its base URL."""
        server = await asyncio.start_server(self._answer, "127.0.0.1", 0)
        try:
            yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        finally:
            server.close()
            await server.wait_closed()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                request = await reader.readuntil(b"\r\n\r\n")
                self.redirected += b"/redirected" in request.split(b"\r\n", 1)[0]
                writer.write(self.response())
                await writer.drain()
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()


async def meet(
    rng: random.Random, samples: Sequence[Any], rounds: int, client: Callable[[str, int], Awaitable[None]]
) -> None:
    """Run `client` against several hostile servers at once, reproducibly for the same seed.

    Some responses (an incomplete chunk on an open connection) end only by the client's timeout: one after another,
    10,000 of them would take most of an hour.

    Args:
        rng: random number generator of the responses.
        samples: as of `Hostile`.
        rounds: number of requests in all.
        client: makes requests; called with the base URL and the number of requests.

    Raises:
        AssertionError: a client followed a redirect.
    """
    servers = [Hostile(random.Random(rng.random()), samples) for _ in range(AT_ONCE)]  # noqa: S311 - drawn from the seed

    async def one(number: int, hostile: Hostile) -> None:
        async with hostile.serving() as base:
            await client(base, len(range(number, rounds, AT_ONCE)))

    await asyncio.gather(*(one(number, hostile) for number, hostile in enumerate(servers)))
    if any(hostile.redirected for hostile in servers):
        raise AssertionError("a client followed a redirect")
