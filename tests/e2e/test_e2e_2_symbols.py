"""Journey 2: symbols are added and removed and the size of shards changes, under load."""

import collections
import json
import time

from e2e_kube import until
from e2e_ledger import bounds_of, compare, first_stored, last_stored
from e2e_system import FEED, NAMESPACE, VENUE, System, names

pytest_plugins = ["e2e_fixtures"]

NEW = [f"NEW{number}USDT" for number in range(10)]


def test_symbols_added(system: System) -> None:
    before = names(system.workers())
    restarts = _restarts(system)
    system.fault("list", symbols=NEW, trade_rate=0.5, quote_rate=1)
    symbols = system.feed()["spec"]["symbols"]
    system.patch_feed({"symbols": sorted({*symbols, *NEW})})
    feed = system.await_ready()
    assert feed["status"]["symbols"]["resolved"] == len({*symbols, *NEW}), feed["status"]["symbols"]
    until(
        "the new symbols are stored",
        lambda: set(NEW) <= first_stored(system.database).keys(),
        seconds=90,
    )
    # 200 symbols fill four shards of 50: the new ones have a shard of their own, and no other shard changes.
    assert before <= names(system.workers()), "a worker was replaced"
    assert _restarts(system, before) == restarts
    system.compare()


def test_symbols_removed(system: System) -> None:
    before = names(system.workers())
    symbols = system.feed()["spec"]["symbols"]
    removed = [symbol for symbol in symbols if symbol not in NEW][:10]
    until_then = system.ledger()
    kept = [symbol for symbol in symbols if symbol not in removed]
    system.patch_feed({"symbols": kept})
    system.await_ready()
    streams = {f"{symbol.lower()}@trade" for symbol in removed}
    until("no worker reads the removed symbols", lambda: not streams & _readers(system).keys(), seconds=90)
    assert names(system.workers()) == before, "a removed symbol must restart no worker"
    # Everything sent until the feed was changed, and without a gap the trades after it until the unsubscription.
    gone = compare(
        system.database, bounds_of(until_then, first_stored(system.database), removed), seconds=120
    )
    gone.assert_equal()
    last = last_stored(system.database)
    ledger = system.ledger()
    for symbol in removed:
        ledger["symbols"][symbol]["last_trade_id"] = last[symbol]
    compare(
        system.database, bounds_of(ledger, first_stored(system.database), removed), seconds=60
    ).assert_equal()
    system.compare(kept)
    # Added again, they continue from the checkpoint: trades sent meanwhile are backfilled.
    system.patch_feed({"symbols": symbols})
    system.await_ready()
    system.compare()


def test_shards_larger(system: System) -> None:
    assert _resize(system, 80), "fewer shards are needed, and no symbol has moved"


def test_shards_smaller(system: System) -> None:
    assert _resize(system, 40), "shards must be smaller, and no symbol has moved"


def test_shards_as_before(system: System) -> None:
    # Shards that are not full stay unchanged, unless there are too many of them: no symbol has to move.
    _resize(system, 50)


def _resize(system: System, size: int) -> set[str]:
    """Change the size of the shards; return the trade streams that moved.

    A shard that is kept keeps its pod, and moved symbols are read by both shards for a while.
    """
    shards = _assigned(system)
    before = {
        pod["metadata"]["labels"]["marketfeed.dev/shard"]: pod["metadata"]["uid"] for pod in system.workers()
    }
    read = {f"{symbol.lower()}@trade" for symbol in system.feed()["spec"]["symbols"]}
    begun = time.monotonic()
    system.patch_feed({"shardSize": size})
    overlapped: set[str] = set()
    unread: set[str] = set()

    def settled() -> bool:
        readers = _readers(system)
        overlapped.update(stream for stream, number in readers.items() if number > 1)
        unread.update(read - readers.keys())
        feed = system.feed()
        status = feed["status"]
        current = status.get("observedGeneration") == feed["metadata"]["generation"]
        return bool(
            current
            and not status["shards"]["movingSymbols"]
            and all(each["symbols"] <= size for each in status["shards"]["items"])
            and all(each["hash"] == each["applied"] for each in status["shards"]["items"])
        )

    until(f"MarketFeed {FEED} has shards of {size}", settled, seconds=240, every=0.3)
    system.await_ready()
    system.recovered(f"resharded to {size}", begun)
    moved = {stream for stream, shard in _assigned(system).items() if shards.get(stream) != shard}
    assert bool(overlapped) == bool(moved), f"{len(moved)} moved, {len(overlapped)} were read by both shards"
    assert not unread, f"read by no worker for a while: {sorted(unread)[:10]}"
    after = {
        pod["metadata"]["labels"]["marketfeed.dev/shard"]: pod["metadata"]["uid"] for pod in system.workers()
    }
    replaced = {shard for shard in before.keys() & after.keys() if before[shard] != after[shard]}
    assert not replaced, f"the pods of shards {replaced} were replaced"
    until(
        "each symbol is read once",
        lambda: {number for stream, number in _readers(system).items() if stream in read} == {1},
        seconds=60,
    )
    system.compare()
    return moved


def _assigned(system: System) -> dict[str, str]:
    """Return trade stream -> the ConfigMap of its assigned shard."""
    found = system.kube.get(NAMESPACE, "configmaps", "--selector", f"marketfeed.dev/feed={FEED}")["items"]
    return {
        f"{symbol.lower()}@trade": str(each["metadata"]["name"])
        for each in found
        for symbol in json.loads(each["data"]["assignment.json"])["symbols"]
    }


def _readers(system: System) -> collections.Counter[str]:
    """Return trade stream -> connections that read it."""
    connections = system.kube.ask("venue", VENUE, "/control/connections")
    return collections.Counter(
        stream for each in connections for stream in each["stream_names"] if stream.endswith("@trade")
    )


def _restarts(system: System, only: set[str] | None = None) -> int:
    pods = [pod for pod in system.workers() if only is None or names([pod]) <= only]
    return sum(each["restartCount"] for pod in pods for each in pod["status"]["containerStatuses"])
