"""ConfigMap of a shard: the assignment file, which running workers follow."""

import json

import msgspec

from marketfeed_operator.assign import Reading
from marketfeed_operator.desired.base import Child, Feed, child
from marketfeed_operator.kinds import CONFIG_MAP
from marketfeed_operator.names import INGESTION, SHARD, shard_name
from marketfeed_wire import DecodeError
from marketfeed_wire.assignment import FILE_NAME, assignment_of, decode_assignment, encode_assignment

LEAVING = "leaving.json"
"""Key beside the assignment: the symbols that are read here only until their new shard has them live."""


def config_map(feed: Feed, shard: int, reading: Reading, shards: int) -> Child:
    """The symbols that the shard reads, and its part of the venue's budgets where the feed has so many `shards`.

    Venues count by address, and pods behind one gateway have one: unless the user knows better, all share it.
    """
    share = feed.spec.ingestion.venue_budget_share or shards * feed.spec.ingestion.replicas
    data = {FILE_NAME: encode_assignment(assignment_of(reading.symbols, share)).decode()}
    if reading.leaving:
        data[LEAVING] = json.dumps(sorted(reading.leaving))
    return child(
        feed, CONFIG_MAP, shard_name(feed.name, shard), INGESTION, {"data": data}, extra={SHARD: str(shard)}
    )


def reading_of(data: dict[str, str]) -> Reading:
    """What a stored ConfigMap says; one that was damaged says nothing, and its symbols are assigned anew."""
    try:
        symbols = frozenset(decode_assignment(data.get(FILE_NAME, "").encode()).symbols)
        leaving = frozenset(msgspec.json.decode(data.get(LEAVING, "[]"), type=list[str]))
    except (DecodeError, msgspec.DecodeError):
        return Reading(frozenset(), frozenset())
    return Reading(symbols, leaving & symbols)
