"""Streams that are stored, and their number of consumers."""

from marketfeed_operator.api.storage import Consumer
from marketfeed_operator.desired.base import Feed


def consumer_spec(feed: Feed, stream: str) -> Consumer | None:
    """Return the consumer spec of a stream; None when the stream is not stored.

    A stream without an entry has one consumer. With zero, ``kubectl scale`` on a feed without `consumers`, which
    writes an entry for trades only, would remove the consumers of quotes.
    """
    spec = feed.spec
    if spec.storage is None or stream not in spec.streams:
        return None
    configured = spec.consumers and (
        spec.consumers.trades if stream == "trade" else spec.consumers.book_ticker
    )
    return configured or Consumer()


def stored_streams(feed: Feed) -> list[str]:
    """Return the streams that have consumers."""
    return [stream for stream in ("trade", "bookTicker") if consumer_spec(feed, stream) is not None]
