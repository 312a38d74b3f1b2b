"""A Binance spot venue: the dialect put together with one venue's facts. Implements `Venue`."""

from aiohttp import ClientSession

from marketfeed_workers.venues.binance_spot.mapper import reader
from marketfeed_workers.venues.binance_spot.rest import BinanceRest
from marketfeed_workers.venues.venue import VenueFacts, VenueRest


class BinanceSpot:
    """See `Venue`; `time_unit_us` is the unit of the times in its frames, in microseconds."""

    def __init__(self, facts: VenueFacts, *, time_unit_us: int) -> None:
        self.facts = facts
        self.read = reader(facts.name, time_unit_us)
        self._parameters = "&timeUnit=MICROSECOND" if time_unit_us == 1 else ""

    def streams(self, symbol: str) -> tuple[str, ...]:
        """Trades and best bid and ask; stream names take the symbol in small letters."""
        return f"{symbol.lower()}@trade", f"{symbol.lower()}@bookTicker"

    def stream_url(self, base: str, streams: list[str]) -> str:
        """The combined stream's address, so that each frame names the stream that it belongs to."""
        return f"{base.rstrip('/')}/stream?streams={'/'.join(streams)}{self._parameters}"

    def rest(self, base: str, session: ClientSession) -> VenueRest:
        """The REST side over an open HTTP session."""
        return BinanceRest(base, session)
