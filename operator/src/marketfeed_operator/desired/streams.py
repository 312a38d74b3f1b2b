"""Which streams are stored, by how many consumers."""

from marketfeed_operator.api.storage import Consumer
from marketfeed_operator.desired.base import Feed


def consumer_spec(feed: Feed, stream: str) -> Consumer | None:
    """What the feed says of a stream's consumers; None when the stream is not stored.

    A stream that nothing is said of has one. Were it none, ``kubectl scale`` on a feed without `consumers`, which
    writes an entry for the trades alone, would end the consumers of the quotes.
    """
    spec = feed.spec
    if spec.storage is None or stream not in spec.streams:
        return None
    told = spec.consumers and (spec.consumers.trades if stream == "trade" else spec.consumers.book_ticker)
    return told or Consumer()


def stored_streams(feed: Feed) -> list[str]:
    """The streams that have consumers."""
    return [stream for stream in ("trade", "bookTicker") if consumer_spec(feed, stream) is not None]
