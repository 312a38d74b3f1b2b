"""What a MarketFeed would change: which symbols come, go and move, and which shards. Plain functions."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from marketfeed_operator.api import Spec
from marketfeed_operator.assign import Reading, assign, moves
from marketfeed_operator.names import shard_name


@dataclass(frozen=True)
class Preview:
    """The difference between what is read and what would be.

    Attributes:
        moved: symbol -> (old shard, new shard), by name.
        shards: shard -> (symbols now, symbols then), for each that would change.
        settings: fields of the spec that differ, by path -> (now, then); symbols apart. Most of them restart pods.
    """

    feed: str
    new: bool
    added: tuple[str, ...]
    removed: tuple[str, ...]
    moved: Mapping[str, tuple[str, str]]
    shards: Mapping[str, tuple[int, int]]
    settings: Mapping[str, tuple[Any, Any]]

    @property
    def empty(self) -> bool:
        """Nothing would change."""
        return not (self.new or self.shards or self.moved or self.settings)


def as_json(found: Preview) -> dict[str, Any]:
    """The same for programs: each pair by the names of its sides."""
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
    }


def preview(
    name: str, now: Mapping[int, Reading], stored: Spec | None, then: Spec, symbols: frozenset[str]
) -> Preview:
    """What would change from `stored`, whose shards read `now`, to `then` with its `symbols`."""
    before = {shard: reading.belonging for shard, reading in now.items()}
    target = assign(before, symbols, then.shard_size)
    read = frozenset(symbol for held in before.values() for symbol in held)
    changed = [shard for shard in sorted({*before, *target}) if before.get(shard) != target.get(shard)]
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
    )


def _settings(spec: Spec) -> dict[str, Any]:
    found = spec.model_dump(by_alias=True, exclude_none=True, mode="json")
    found.pop("symbols", None)
    return found


def _differences(before: Any, after: Any, path: str = "spec") -> dict[str, tuple[Any, Any]]:
    if not (isinstance(before, dict) and isinstance(after, dict)):
        return {} if before == after else {path: (before, after)}
    result: dict[str, tuple[Any, Any]] = {}
    for key in sorted({*before, *after}):
        result |= _differences(before.get(key), after.get(key), f"{path}.{key}")
    return result
