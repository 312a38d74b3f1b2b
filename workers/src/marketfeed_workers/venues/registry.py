"""Venues by name.

Apart from the interface `venue`, which the venues import.
"""

from marketfeed_workers.venues import binance, binance_us
from marketfeed_workers.venues.venue import Venue

VENUES: dict[str, Venue] = {
    venue.facts.name: venue
    for venue in (
        binance_us.VENUE,
        binance.VENUE,
    )
}

DEFAULT = binance_us.VENUE.facts.name
