"""cryptofeed from Binance frames to Kafka, with its own feed, Kafka backend and defaults.

Runs in a separate environment with cryptofeed and aiokafka. Only two settings differ from the defaults: the address of
the venue, and acks=all as in marketfeed.

    python ingest_cryptofeed.py WS_BASE BROKER SYMBOL,…
"""

import asyncio
import sys

from cryptofeed import FeedHandler
from cryptofeed.backends.kafka import TickerKafka, TradeKafka
from cryptofeed.connection import WebsocketEndpoint
from cryptofeed.defines import TICKER, TRADES
from cryptofeed.exchanges import Binance
from cryptofeed.symbols import Symbols


class LocalBinance(Binance):
    """Binance on this machine without TLS, which cryptofeed rejects by the address's scheme."""

    def connect(self):  # type: ignore[no-untyped-def]
        connections = super().connect()
        for connection, *_ in connections:
            connection.address = connection.address.replace("wss://", "ws://")
        return connections


def main(base: str, broker: str, symbols: list[str]) -> None:
    names = {f"{symbol[:-4]}-{symbol[-4:]}": symbol for symbol in symbols}
    Symbols.set(Binance.id, names, {"tick_size": {}, "instrument_type": dict.fromkeys(names, "spot")})
    LocalBinance.websocket_endpoints = [WebsocketEndpoint(base.replace("ws://", "wss://"))]
    kafka = {"bootstrap_servers": broker, "acks": "all", "enable_idempotence": True}
    handler = FeedHandler({"log": {"filename": "cryptofeed.log", "level": "WARNING"}, "uvloop": True})
    handler.add_feed(
        LocalBinance(
            symbols=list(names),
            channels=[TRADES, TICKER],
            callbacks={TRADES: TradeKafka(**kafka), TICKER: TickerKafka(**kafka)},
        )
    )
    # The feed handler gets the thread's event loop, which current uvloop versions do not create.
    asyncio.set_event_loop(asyncio.new_event_loop())
    handler.run()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3].split(","))
