"""Preview of a changed MarketFeed: added, removed and moved symbols, shards and objects. Pure functions."""

from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass
from typing import Any

from marketfeed_operator.api import Spec
from marketfeed_operator.assign import ShardAssignment, assign, moves
from marketfeed_operator.desired import Defaults, Feed, config_hash, desired
from marketfeed_operator.kinds import DEPLOYMENT, JOB, KAFKA_TOPIC, STATEFUL_SET
from marketfeed_operator.names import shard_name, shard_of


@dataclass(frozen=True)
class Preview:
    """The difference between the current and the desired state.

    Attributes:
        moved: Symbol -> (old shard, new shard), by name.
        shards: Shard -> (number of symbols now, then), for each changed shard.
        settings: Changed fields of the spec except symbols, by path -> (now, then).
        created, deleted: Objects as (kind, name), without those of shards and without Jobs.
        migrated: Whether a Job would migrate the database schema before consumers start.
        restarted: Names of Deployments and StatefulSets whose pods would be replaced.
        paused: Whether the feed would be paused, so that no change is applied.
    """

    feed: str
    new: bool
    added: tuple[str, ...]
    removed: tuple[str, ...]
    moved: Mapping[str, tuple[str, str]]
    shards: Mapping[str, tuple[int, int]]
    settings: Mapping[str, tuple[Any, Any]]
    created: tuple[tuple[str, str], ...]
    deleted: tuple[tuple[str, str], ...]
    migrated: bool
    restarted: tuple[str, ...]
    paused: bool

    @property
    def empty(self) -> bool:
        """Whether nothing would change."""
        return not (self.new or self.shards or self.moved or self.settings)


def as_json(found: Preview) -> dict[str, Any]:
    """Return the preview as for ``--output json``."""
    return {
        "feed": found.feed,
        "new": found.new,
        "added": list(found.added),
        "removed": list(found.removed),
        "moved": [{"symbol": symbol, "from": old, "to": new} for symbol, (old, new) in found.moved.items()],
        "shards": [
            {"name": name, "symbolsNow": now, "symbolsThen": then}
            for name, (now, then) in found.shards.items()
        ],
        "settings": [
            {"path": path, "now": now, "then": then} for path, (now, then) in found.settings.items()
        ],
        "created": [{"kind": kind, "name": name} for kind, name in found.created],
        "deleted": [{"kind": kind, "name": name} for kind, name in found.deleted],
        "migrated": found.migrated,
        "restarted": list(found.restarted),
        "paused": found.paused,
    }


def preview(
    name: str,
    now: Mapping[int, ShardAssignment],
    stored: Spec | None,
    then: Spec,
    symbols: frozenset[str],
    kinds: Set[str] = frozenset(),
) -> Preview:
    """Return the changes from `stored` to `then`.

    Args:
        name: Name of the feed.
        now: Current assignment of each shard.
        stored: Current spec; None for a new feed.
        then: Desired spec.
        symbols: Symbols of the desired spec.
        kinds: Optional kinds that the cluster serves.
    """
    before = {shard: reading.owned for shard, reading in now.items()}
    target = assign(before, symbols, then.shard_size)
    read = frozenset(symbol for held in before.values() for symbol in held)
    changed = [shard for shard in sorted({*before, *target}) if before.get(shard) != target.get(shard)]
    old, new = _children(name, stored, kinds, before), _children(name, then, kinds, target)
    return Preview(
        feed=name,
        new=stored is None,
        added=tuple(sorted(symbols - read)),
        removed=tuple(sorted(read - symbols)),
        moved={
            symbol: (shard_name(name, old), shard_name(name, new))
            for symbol, (old, new) in sorted(moves(now, target).items())
        },
        shards={
            shard_name(name, shard): (len(before.get(shard, ())), len(target.get(shard, ())))
            for shard in changed
        },
        settings=_differences(_settings(stored), _settings(then)) if stored is not None else {},
        created=_objects(new.keys() - old.keys()),
        # The operator does not delete topics, because their data would be lost.
        deleted=_objects(key for key in old.keys() - new.keys() if key[0] != KAFKA_TOPIC.kind),
        migrated=bool(_jobs(new) - _jobs(old)),
        restarted=tuple(sorted(key[1] for key in old.keys() & new.keys() if old[key] != new[key])),
        paused=then.paused,
    )


def _children(
    name: str, spec: Spec | None, kinds: Set[str], shards: Mapping[int, Set[str]]
) -> dict[tuple[str, str], str]:
    """Return kind and name of each owned object -> hash of its pod template, "" if it has no pods.

    Values that only the operator has (images, listeners, versions of Secrets) are the same on both sides of a preview.
    """
    if spec is None:
        return {}
    feed = Feed("namespace", name, "uid", 1, spec, Defaults("worker", "consumer"))
    found = desired(
        feed, {shard: ShardAssignment(frozenset(held), frozenset()) for shard, held in shards.items()}, kinds
    )
    return {
        (child.kind.kind, child.name): config_hash(child.body)
        if child.kind in (DEPLOYMENT, STATEFUL_SET)
        else ""
        for child in found
    }


def _jobs(children: Iterable[tuple[str, str]]) -> set[str]:
    return {name for kind, name in children if kind == JOB.kind}


def _objects(keys: Iterable[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
    """Return the sorted objects without those of shards, which are listed with symbols, and without Jobs."""
    return tuple(sorted(key for key in keys if shard_of(key[1]) is None and key[0] != JOB.kind))


def _settings(spec: Spec) -> dict[str, Any]:
    found = spec.model_dump(by_alias=True, exclude_none=True, mode="json")
    found.pop("symbols", None)
    return found


def _differences(before: Any, after: Any, path: str = "spec") -> dict[str, tuple[Any, Any]]:
    # A missing object differs in each field of the other side.
    before, after = (
        {} if one is None and isinstance(other, dict) else one
        for one, other in ((before, after), (after, before))
    )
    if not (isinstance(before, dict) and isinstance(after, dict)):
        return {} if before == after else {path: (before, after)}
    result: dict[str, tuple[Any, Any]] = {}
    for key in sorted({*before, *after}):
        result |= _differences(before.get(key), after.get(key), f"{path}.{key}")
    return result
