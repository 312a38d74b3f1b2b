"""Lower bound of the ingestion benchmark: a minimal loop with the worker's libraries.

It receives, decodes, encodes and produces, without continuity checks, validation of decimals, metrics, backfill, and
per-message acknowledgements (delivery reports for errors only). Prints "done" when Kafka has acknowledged all messages,
and waits for the end of stdin. Without a broker it only receives.

    python ingest_floor.py URL EVENTS [BROKER TRADES_TOPIC BOOK_TOPIC]
"""

import asyncio
import sys
import time
from typing import Any

import msgspec
import uvloop
from confluent_kafka import Producer
from picows import WSFrame, WSListener, WSMsgType, WSTransport, ws_connect

from marketfeed_wire import BookTicker, Trade, encode


class TradeData(msgspec.Struct, gc=False):
    E: int
    s: str
    t: int
    p: str
    q: str
    T: int
    m: bool


class TradeFrame(msgspec.Struct, gc=False):
    data: TradeData


class QuoteData(msgspec.Struct, gc=False):
    u: int
    s: str
    b: str
    B: str
    a: str
    A: str


class QuoteFrame(msgspec.Struct, gc=False):
    data: QuoteData


decode_trade = msgspec.json.Decoder(TradeFrame).decode
decode_quote = msgspec.json.Decoder(QuoteFrame).decode

PRODUCER = {
    "acks": "all",
    "enable.idempotence": True,
    "linger.ms": 5,
    "compression.type": "lz4",
    "delivery.report.only.error": True,
    "queue.buffering.max.messages": 0,
    "queue.buffering.max.kbytes": 2**31 - 1,
}
"""Settings of the worker, except for delivery reports."""


class Floor(WSListener):
    """Produces the messages of each socket read."""

    def __init__(self, events: int, producer: Producer | None, topics: list[str]) -> None:
        super().__init__()
        self.done = asyncio.get_running_loop().create_future()
        self._producer = producer
        self._topics = topics
        self._missing = events
        self._frames: list[bytes] = []

    def on_ws_frame(self, _: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type is WSMsgType.TEXT:
            self._frames.append(frame.get_payload_as_bytes())
        if frame.last_in_buffer and self._frames:
            frames, self._frames = self._frames, []
            if self._producer is not None:
                self.publish(self._producer, frames)
            self._missing -= len(frames)
            if self._missing <= 0 and not self.done.done():
                self.done.set_result(None)

    def publish(self, producer: Producer, frames: list[bytes]) -> None:
        now_us = time.time_ns() // 1000
        trades: list[dict[str, Any]] = []
        quotes: list[dict[str, Any]] = []
        for frame in frames:
            if frame.find(b'@trade"', 0, 64) > 0:
                trade = decode_trade(frame).data
                message = Trade(
                    "binance_us", trade.s, trade.t, trade.p, trade.q, trade.m, trade.T * 1000, trade.E * 1000, now_us
                )  # fmt: skip
                trades.append({"value": encode(message), "key": trade.s.encode()})
            else:
                quote = decode_quote(frame).data
                ticker = BookTicker(
                    "binance_us", quote.s, quote.u, quote.b, quote.B, quote.a, quote.A, None, now_us
                )
                quotes.append({"value": encode(ticker), "key": quote.s.encode()})
        trades_topic, book_topic = self._topics
        if trades:
            producer.produce_batch(trades_topic, trades)
        if quotes:
            producer.produce_batch(book_topic, quotes)


async def run(url: str, events: int, broker: str = "", *topics: str) -> None:
    producer = Producer({**PRODUCER, "bootstrap.servers": broker}) if broker else None
    transport, listener = await ws_connect(lambda: Floor(events, producer, list(topics)), url)
    await listener.done
    if producer is not None and producer.flush(60):
        raise SystemExit("Kafka did not acknowledge all messages")
    print("done", flush=True)
    await asyncio.to_thread(sys.stdin.read)
    transport.disconnect()


if __name__ == "__main__":
    uvloop.run(run(sys.argv[1], int(sys.argv[2]), *sys.argv[3:]))
