"""Captures of each venue: documented frames and their meaning. And where venues are named."""

import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

import marketfeed_workers
from marketfeed_wire import BookTicker, Trade
from marketfeed_workers.venues.errors import BadFrame
from marketfeed_workers.venues.registry import VENUES
from marketfeed_workers.venues.venue import Event, Reply, ShutdownNotice, Venue

SOURCES = Path(marketfeed_workers.__file__).parent
RECEIVED_TIME_US = 1
KINDS = {"trade", "quote", "reply", "shutdown", "nothing", "bad_frame"}
SETTING = re.compile(r"binance_(ws_base|rest_base|symbols|streams|api_key)", re.IGNORECASE)
"""The settings' names are an API that is older than the second venue."""


class Capture(msgspec.Struct):
    what: str
    frame: str
    means: dict[str, Any]


def captures(venue: str) -> list[Capture]:
    lines = (SOURCES / "venues" / venue / "captures" / "frames.jsonl").read_bytes().splitlines()
    return [msgspec.json.decode(line, type=Capture) for line in lines]


def every_capture() -> list[Any]:
    return [
        pytest.param(VENUES[name], each, id=f"{name}: {each.what}")
        for name in VENUES
        for each in captures(name)
    ]


def meaning(event: Event) -> dict[str, Any]:
    match event:
        case Trade():
            return {"trade": msgspec.to_builtins(event)}
        case BookTicker():
            return {"quote": msgspec.to_builtins(event)}
        case Reply():
            return {"reply": list(event)}
        case ShutdownNotice():
            return {"shutdown": []}
        case _:
            return {"nothing": []}


@pytest.mark.parametrize(("venue", "capture"), every_capture())
def test_captures_decode_to_their_documented_meaning(venue: Venue, capture: Capture) -> None:
    batch = venue.read_all([capture.frame.encode()], RECEIVED_TIME_US)
    if "bad_frame" in capture.means:
        with pytest.raises(BadFrame, match=re.escape(capture.means["bad_frame"])):
            raise batch.refused[0]
    else:
        assert batch.refused == []
        found = [*batch.trades, *batch.quotes, *batch.notices]
        assert [meaning(event) for event in found or [None]] == [capture.means]


@pytest.mark.parametrize("venue", sorted(VENUES))
def test_venue_has_a_folder_captures_of_each_type_and_a_page_of_facts(venue: str) -> None:
    assert {kind for each in captures(venue) for kind in each.means} == KINDS
    page = SOURCES.parents[2] / "docs" / "venues" / f"{venue}.md"
    facts = VENUES[venue].facts
    assert facts.ws_base in page.read_text()
    assert facts.rest_base in page.read_text()


def test_venue_names_stay_in_their_folder_and_the_registry() -> None:
    families = {name.partition("_")[0] for name in VENUES} | {"coinbase", "kraken"}
    naming = re.compile("|".join(sorted(families)), re.IGNORECASE)
    found = [
        f"{file.relative_to(SOURCES)}: {line.strip()}"
        for file in sorted(SOURCES.rglob("*.py"))
        if file.relative_to(SOURCES).parts[:-1] in [(), ("transports",), ("venues",)]
        and file.relative_to(SOURCES) != Path("venues/registry.py")
        for line in file.read_text().splitlines()
        if naming.search(SETTING.sub("", line))
    ]
    assert found == []
