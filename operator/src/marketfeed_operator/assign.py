"""Sticky assignment of symbols to shards, and the handover when a symbol moves. Pure.

`assign` computes the shard of each symbol. It changes as little as possible, because each change costs subscriptions:
adding or removing a symbol changes one shard. `transition` computes what each shard reads meanwhile: a moving symbol
stays in its old shard until it is live in the new one, so that it is read at every moment.

          target of A   target of B      read by A                  read by B
    t0    BTC ETH       XRP              BTC ETH                    XRP
    t1    BTC           ETH XRP          BTC ETH (ETH is draining)  ETH XRP     B is not live yet
    t2    BTC           ETH XRP          BTC                        ETH XRP     B has reported its new hash
"""

import heapq
import itertools
from collections import deque
from collections.abc import Collection, Mapping, Sequence, Set
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

MERGE_FILL: Final = Fraction(3, 4)
"""Maximum fill at which two shards are merged. Below 1, so that shards near the limit do not merge and split in
turn; the cost is that shards may stay as little as 3/8 full on average."""

Shards = Mapping[int, Set[str]]


def assign(previous: Shards, symbols: Collection[str], shard_size: int) -> dict[int, frozenset[str]]:
    """Assign each symbol to exactly one shard of at most `shard_size` symbols; no shard is empty.

    Deterministic and idempotent. `previous` may contain symbols that are removed and shards above the limit; of a
    symbol in two shards the lower shard keeps it.

    Args:
        previous: current assignment of each shard.
        symbols: symbols to assign.
        shard_size: maximum number of symbols per shard.
    """
    unassigned = set(symbols)
    shards: dict[int, set[str]] = {}
    for shard in sorted(previous):
        shards[shard] = unassigned & previous[shard]
        unassigned -= shards[shard]
    for held in shards.values():
        overflow = sorted(held)[shard_size:]
        held.difference_update(overflow)
        unassigned.update(overflow)
    _place(sorted(unassigned), shards, shard_size)
    merged = _merge({shard: held for shard, held in shards.items() if held}, shard_size)
    return {shard: frozenset(merged[shard]) for shard in sorted(merged)}


def _place(symbols: Sequence[str], shards: dict[int, set[str]], shard_size: int) -> None:
    """Fill the fullest shard with room, then the next, then new ones: many new symbols change few shards."""
    rest = deque(symbols)
    with_room = [shard for shard, held in shards.items() if 0 < len(held) < shard_size]
    unused = (number for number in itertools.count() if not shards.get(number))
    for shard in itertools.chain(sorted(with_room, key=lambda shard: (-len(shards[shard]), shard)), unused):
        if not rest:
            return
        held = shards.setdefault(shard, set())
        while rest and len(held) < shard_size:
            held.add(rest.popleft())


def _merge(shards: dict[int, set[str]], shard_size: int) -> dict[int, set[str]]:
    """Merge the two smallest shards while they fit into one with room to spare.

    The shard with more symbols of its own, not counting earlier merges, keeps its number; the symbols of the other
    move.
    """
    own = {shard: len(held) for shard, held in shards.items()}
    by_size = [(len(held), -shard) for shard, held in shards.items()]
    heapq.heapify(by_size)
    while len(by_size) >= 2:
        (one, first), (other, second) = heapq.heappop(by_size), heapq.heappop(by_size)
        if one + other > shard_size * MERGE_FILL:
            break
        goes, stays = sorted((-first, -second), key=lambda shard: (own[shard], -shard))
        shards[stays] |= shards.pop(goes)
        heapq.heappush(by_size, (len(shards[stays]), -stays))
    return shards


@dataclass(frozen=True)
class ShardAssignment:
    """Symbols that a shard reads.

    Attributes:
        symbols: all symbols that its workers subscribe to.
        draining: the subset that is assigned to another shard and read here until it is live there.
    """

    symbols: frozenset[str]
    draining: frozenset[str]

    @property
    def owned(self) -> frozenset[str]:
        """Return the symbols assigned to the shard, the `previous` of the next `assign`."""
        return self.symbols - self.draining


def transition(
    now: Mapping[int, ShardAssignment], target: Shards, live: Shards
) -> dict[int, ShardAssignment]:
    """Return what each shard reads next, on the way from `now` to `target`.

    A shard drops a symbol when the symbol is live in its target shard, or has no target. A shard without symbols is
    not in the result.

    Args:
        now: current assignment of each shard.
        target: desired shard of each symbol.
        live: symbols that the workers of each shard have reported as subscribed.
    """
    home = {symbol: shard for shard, symbols in target.items() for symbol in symbols}
    result = {}
    for shard in sorted({*now, *target}):
        own = frozenset(target.get(shard, frozenset()))
        held = now[shard].symbols if shard in now else frozenset()
        draining = frozenset(
            symbol
            for symbol in held - own
            if symbol in home and symbol not in live.get(home[symbol], frozenset())
        )
        if own or draining:
            result[shard] = ShardAssignment(own | draining, draining)
    return result


def moves(now: Mapping[int, ShardAssignment], target: Shards) -> dict[str, tuple[int, int]]:
    """Return symbol -> (from, to) for each symbol whose shard changes."""
    before = {symbol: shard for shard, assignment in now.items() for symbol in assignment.owned}
    return {
        symbol: (before[symbol], shard)
        for shard, symbols in target.items()
        for symbol in symbols
        if symbol in before and before[symbol] != shard
    }
