"""Facts of each venue, and its URLs and commands."""

import json
from urllib.parse import parse_qs, urlsplit

import pytest

from marketfeed_workers.settings import WorkerSettings
from marketfeed_workers.venues import binance, binance_us
from marketfeed_workers.venues.registry import VENUES
from marketfeed_workers.venues.venue import Venue


@pytest.fixture(params=sorted(VENUES))
def venue(request: pytest.FixtureRequest) -> Venue:
    return VENUES[request.param]


def test_venue_registry_matches_the_setting() -> None:
    assert WorkerSettings.model_fields["venue"].description == " or ".join(VENUES)
    assert all(name == venue.facts.name for name, venue in VENUES.items())


def test_venue_facts_are_within_the_documented_limits(venue: Venue) -> None:
    facts = venue.facts
    assert facts.ws_base.startswith("wss://")
    assert facts.rest_base.startswith("https://")
    assert facts.trade_ids == "contiguous"
    assert facts.max_streams_per_connection == 1024
    assert facts.connection_life_seconds == 86_400
    # Five inbound messages a second, pongs among them.
    assert 1 / facts.command_interval_seconds < 4
    # 200 of the longest stream names are far below the limit of a frame, 400 in a URL are below 20,000 bytes.
    assert facts.max_names_per_command <= 200
    assert facts.max_streams_in_url <= 400
    assert (facts.connection_attempts, facts.connection_attempts_window_seconds) == (300, 300)


def test_venue_streams_of_a_symbol_are_in_lower_case(venue: Venue) -> None:
    assert venue.streams("BTCUSDT") == ("btcusdt@trade", "btcusdt@bookTicker")


@pytest.mark.parametrize(
    ("base", "streams", "address"),
    [
        pytest.param(
            "wss://stream.binance.us:9443",
            ["btcusdt@trade", "btcusdt@bookTicker"],
            "wss://stream.binance.us:9443/stream?streams=btcusdt@trade/btcusdt@bookTicker",
            id="a combined stream",
        ),
        pytest.param(
            "ws://127.0.0.1:1/", ["a@trade"], "ws://127.0.0.1:1/stream?streams=a@trade", id="a slash"
        ),
        pytest.param("ws://127.0.0.1:1", [], "ws://127.0.0.1:1/stream", id="without streams"),
    ],
)
def test_venue_url_of_binance_us(base: str, streams: list[str], address: str) -> None:
    assert binance_us.VENUE.stream_url(base, streams) == address


def test_venue_url_of_binance_requests_microseconds() -> None:
    query = parse_qs(urlsplit(binance.VENUE.stream_url("wss://x", ["a@trade", "b@trade"])).query)
    assert query == {"streams": ["a@trade/b@trade"], "timeUnit": ["MICROSECOND"]}
    assert binance.VENUE.stream_url("wss://x", []) == "wss://x/stream?timeUnit=MICROSECOND"


def test_venue_commands_have_an_id(venue: Venue) -> None:
    streams = ["btcusdt@trade", "btcusdt@bookTicker"]
    assert json.loads(venue.subscribe(7, streams)) == {"method": "SUBSCRIBE", "params": streams, "id": 7}
    assert json.loads(venue.unsubscribe(8, streams)) == {"method": "UNSUBSCRIBE", "params": streams, "id": 8}
    assert json.loads(venue.list_subscriptions(9)) == {"method": "LIST_SUBSCRIPTIONS", "id": 9}


@pytest.mark.parametrize(
    ("frame", "stream"),
    [
        (b'{"stream":"btcusdt@trade","data":{}}', "btcusdt@trade"),
        (b'{"stream":"!serverShutdown","data":{}}', "!serverShutdown"),
        (b'{"result":["btcusdt@trade"],"id":1}', ""),
        (b'{"e":"serverShutdown","E":1}', ""),
        (b"", ""),
        (b'{"stream":"\xff"}', "�"),
    ],
)
def test_venue_stream_of_a_frame(venue: Venue, frame: bytes, stream: str) -> None:
    assert venue.stream_of(frame) == stream
