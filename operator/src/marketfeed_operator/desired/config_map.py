"""ConfigMap of a shard: the assignment file that running workers follow."""

import json

import msgspec

from marketfeed_operator.assign import ShardAssignment
from marketfeed_operator.desired.base import Child, Feed, child
from marketfeed_operator.kinds import CONFIG_MAP
from marketfeed_operator.names import INGESTION, SHARD, shard_name
from marketfeed_wire import DecodeError
from marketfeed_wire.assignment import FILE_NAME, assignment_of, decode_assignment, encode_assignment

DRAINING = "draining.json"
"""Key beside the assignment: symbols that are draining, read here until they are live in their new shard."""
OLD_DRAINING = "leaving.json"
"""Name of that key in the version before this one: read, and written beside the new one, so that no draining symbol is
lost by a rollback of the operator. The next version may drop it."""


def config_map(feed: Feed, shard: int, assignment: ShardAssignment, shards: int) -> Child:
    """Return the ConfigMap with the shard's symbols and its share of the venue's rate limits among all `shards`.

    Venues limit by IP address, and pods behind one gateway share one: by default all workers share the limits.

    Args:
        feed: the feed.
        shard: number of the shard.
        assignment: symbols of the shard.
        shards: number of all shards.
    """
    share = feed.spec.ingestion.venue_budget_share or shards * feed.spec.ingestion.replicas
    data = {FILE_NAME: encode_assignment(assignment_of(assignment.symbols, share)).decode()}
    if assignment.draining:
        data[DRAINING] = data[OLD_DRAINING] = json.dumps(sorted(assignment.draining))
    return child(
        feed, CONFIG_MAP, shard_name(feed.name, shard), INGESTION, {"data": data}, extra={SHARD: str(shard)}
    )


def stored_assignment(data: dict[str, str]) -> ShardAssignment:
    """Return the symbols in a stored ConfigMap; none when it is damaged, so that its symbols are assigned again."""
    try:
        symbols = frozenset(decode_assignment(data.get(FILE_NAME, "").encode()).symbols)
        draining = frozenset(
            msgspec.json.decode(data.get(DRAINING) or data.get(OLD_DRAINING, "[]"), type=list[str])
        )
    except (DecodeError, msgspec.DecodeError):
        return ShardAssignment(frozenset(), frozenset())
    return ShardAssignment(symbols, draining & symbols)
