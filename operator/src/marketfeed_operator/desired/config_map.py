"""ConfigMap of a shard: the assignment file that running workers follow."""

import json

import msgspec

from marketfeed_operator.assign import Reading
from marketfeed_operator.desired.base import Child, Feed, child
from marketfeed_operator.kinds import CONFIG_MAP
from marketfeed_operator.names import INGESTION, SHARD, shard_name
from marketfeed_wire import DecodeError
from marketfeed_wire.assignment import FILE_NAME, assignment_of, decode_assignment, encode_assignment

LEAVING = "leaving.json"
"""Key beside the assignment: symbols that are draining, read here until they are live in their new shard."""


def config_map(feed: Feed, shard: int, reading: Reading, shards: int) -> Child:
    """Return the ConfigMap with the shard's symbols and its share of the venue's rate limits among all `shards`.

    Venues limit by IP address, and pods behind one gateway share one: by default all workers share the limits.
    """
    share = feed.spec.ingestion.venue_budget_share or shards * feed.spec.ingestion.replicas
    data = {FILE_NAME: encode_assignment(assignment_of(reading.symbols, share)).decode()}
    if reading.leaving:
        data[LEAVING] = json.dumps(sorted(reading.leaving))
    return child(
        feed, CONFIG_MAP, shard_name(feed.name, shard), INGESTION, {"data": data}, extra={SHARD: str(shard)}
    )


def reading_of(data: dict[str, str]) -> Reading:
    """Return the symbols in a stored ConfigMap; none when it is damaged, so that its symbols are assigned again."""
    try:
        symbols = frozenset(decode_assignment(data.get(FILE_NAME, "").encode()).symbols)
        leaving = frozenset(msgspec.json.decode(data.get(LEAVING, "[]"), type=list[str]))
    except (DecodeError, msgspec.DecodeError):
        return Reading(frozenset(), frozenset())
    return Reading(symbols, leaving & symbols)
