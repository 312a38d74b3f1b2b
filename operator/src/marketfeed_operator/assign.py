"""Which shard reads which symbol: a pure, sticky function, and the steps in between when a symbol moves.

`assign` says where every symbol belongs. It changes as little as it can, because each change costs subscriptions:
a symbol added or removed changes one shard. `transition` says what each shard reads meanwhile: a symbol that moves
stays in its old shard until the new one has it live, so that at no moment nobody reads it.

          target of A   target of B      read by A        read by B
    t0    BTC ETH       XRP              BTC ETH          XRP
    t1    BTC           ETH XRP          BTC ETH (ETH is leaving)  ETH XRP     B is not live yet
    t2    BTC           ETH XRP          BTC              ETH XRP     B has reported its new hash
"""

import heapq
import itertools
from collections import deque
from collections.abc import Collection, Mapping, Sequence, Set
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

MERGE_FILL: Final = Fraction(3, 4)
"""Two shards become one when they fill it to this part at most. Below 1, so that shards near their bound do not
merge and split in turn; the price is that a shard may stay as little as three eighths full on average."""

Shards = Mapping[int, Set[str]]


def assign(previous: Shards, symbols: Collection[str], shard_size: int) -> dict[int, frozenset[str]]:
    """Each of `symbols` in exactly one shard of at most `shard_size`; no shard is empty.

    Deterministic, and the same again when applied to its own answer. `previous` may name symbols that are gone
    and hold shards above the size; where it names a symbol in two shards the lower one keeps it.
    """
    wanted = set(symbols)
    shards: dict[int, set[str]] = {}
    for shard in sorted(previous):
        shards[shard] = wanted & previous[shard]
        wanted -= shards[shard]
    for held in shards.values():
        overflow = sorted(held)[shard_size:]
        held.difference_update(overflow)
        wanted.update(overflow)
    _place(sorted(wanted), shards, shard_size)
    merged = _merge({shard: held for shard, held in shards.items() if held}, shard_size)
    return {shard: frozenset(merged[shard]) for shard in sorted(merged)}


def _place(symbols: Sequence[str], shards: dict[int, set[str]], shard_size: int) -> None:
    """Fill the fullest shard that has room, then the next, then open new ones: many new symbols change few shards."""
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
    """Make one of the two smallest shards while they fit into one with room to spare.

    The one of the two whose own symbols are more keeps its number, also when it has taken others before: the rest
    moves.
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
class Reading:
    """What a shard reads now.

    Attributes:
        symbols: all that its workers subscribe to.
        leaving: those of them that belong to another shard and are read here until they are live there.
    """

    symbols: frozenset[str]
    leaving: frozenset[str]

    @property
    def belonging(self) -> frozenset[str]:
        """The symbols that belong to the shard; `assign` takes these as its `previous`."""
        return self.symbols - self.leaving


def transition(now: Mapping[int, Reading], target: Shards, live: Shards) -> dict[int, Reading]:
    """What each shard reads next, on the way from `now` to `target`.

    A shard lets go of a symbol when the target's shard for it has it live, or when no shard is to read it. A shard
    that keeps nothing is not in the answer.

    Args:
        now: what the shards' files hold.
        target: where the symbols belong.
        live: the symbols that each shard's workers have reported as subscribed.
    """
    home = {symbol: shard for shard, symbols in target.items() for symbol in symbols}
    result = {}
    for shard in sorted({*now, *target}):
        own = frozenset(target.get(shard, frozenset()))
        held = now[shard].symbols if shard in now else frozenset()
        leaving = frozenset(
            symbol
            for symbol in held - own
            if symbol in home and symbol not in live.get(home[symbol], frozenset())
        )
        if own or leaving:
            result[shard] = Reading(own | leaving, leaving)
    return result


def moves(now: Mapping[int, Reading], target: Shards) -> dict[str, tuple[int, int]]:
    """Symbol -> (from, to) for each symbol that belongs to another shard than before."""
    before = {symbol: shard for shard, reading in now.items() for symbol in reading.belonging}
    return {
        symbol: (before[symbol], shard)
        for shard, symbols in target.items()
        for symbol in symbols
        if symbol in before and before[symbol] != shard
    }
