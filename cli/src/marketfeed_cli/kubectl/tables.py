"""Text output of status and preview."""

from collections.abc import Mapping, Sequence, Sized
from datetime import datetime
from itertools import groupby
from typing import Any

from rich import box
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from marketfeed_cli.kubectl.preview import Preview

MAX_LISTED = 20
"""Maximum number of symbols or objects in a list."""


def status(console: Console, feeds: Sequence[dict[str, Any]], now: datetime) -> None:
    """Print a line per feed; for a single feed also its shards, consumers, Jobs and conditions.

    Args:
        console: Output.
        feeds: MarketFeed objects.
        now: Current time, for ages.
    """
    table = _table(
        "NAMESPACE", "NAME", "VENUE", "SYMBOLS", "SHARDS", "CONSUMERS", "LAG", "MISSING", "READY", "REASON"
    )
    for feed in feeds:
        found = feed.get("status", {})
        shards, consumers = found.get("shards", {}), found.get("consumers", {})
        ready = _conditions(feed).get("Ready", {})
        table.add_row(
            feed["metadata"]["namespace"],
            feed["metadata"]["name"],
            feed["spec"]["venue"],
            _text(found.get("symbols", {}).get("resolved")),
            f"{shards.get('ready', 0)}/{shards.get('desired', 0)}" if shards else "-",
            f"{consumers.get('ready', 0)}/{consumers.get('desired', 0)}" if consumers else "-",
            _text(consumers.get("lag")),
            _text(shards.get("missingTrades")),
            ready.get("status", "-"),
            ready.get("reason", "not reconciled yet"),
        )
    console.print(table)
    if len(feeds) == 1:
        console.print(_details(feeds[0], now))


def age(moment: str | None, now: datetime) -> str:
    """Return the age of a Kubernetes timestamp in kubectl's format (12s, 7m, 5h, 3d), or "-" for none."""
    if moment is None:
        return "-"
    seconds = max(0, int((now - datetime.fromisoformat(moment)).total_seconds()))
    for unit, size in (("d", 86_400), ("h", 3_600), ("m", 60)):
        if seconds >= 2 * size:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"


def _details(feed: dict[str, Any], now: datetime) -> RenderableType:
    found = feed.get("status", {})
    parts: list[RenderableType] = []
    if (shards := found.get("shards", {})).get("items"):
        parts += _shards(shards, now)
    if consumers := found.get("consumers"):
        parts += [Text(), _consumers(consumers)]
    if (migration := found.get("migration", {})).get("job"):
        parts.append(Text(f"\nschema: Job {migration['job']} {migration['state']}"))
    if retention := found.get("retention"):
        newest = f", newest Job {retention['job']} {retention['state']}" if retention.get("job") else ""
        parts.append(Text(f"\nretention: CronJob {retention['cronJob']}{newest}"))
    table = _table("CONDITION", "STATUS", "AGE", "REASON", "MESSAGE")
    for kind, condition in _conditions(feed).items():
        table.add_row(
            kind,
            condition["status"],
            age(condition["lastTransitionTime"], now),
            condition["reason"],
            condition["message"],
        )
    parts += [Text(), table]
    if unknown := found.get("symbols", {}).get("unknown"):
        more = found["symbols"]["unknownCount"] - len(unknown)
        rest = f" and {more} more" if more > 0 else ""
        parts.append(Text(f"\nnot traded by the venue: {', '.join(unknown)}{rest}"))
    return Group(*parts)


def _shards(shards: Mapping[str, Any], now: datetime) -> list[RenderableType]:
    table = _table("SHARD", "SYMBOLS", "PODS READY", "ASSIGNMENT", "LAST TRADE", "MISSING")
    for item in shards["items"]:
        applied = "live" if item["applied"] == item["hash"] else "not live yet"
        # The status has a resolution of a minute and is updated about once a minute.
        last = age(item.get("lastTradeTime"), now)
        table.add_row(
            item["name"], str(item["symbols"]), str(item["ready"]), applied,
            last if last == "-" else f"{last} ago", str(item["missingTrades"]),
        )  # fmt: skip
    more = shards["desired"] - len(shards["items"])
    return [Text(), table, *([Text(f"and {more} more shards")] if more > 0 else [])]


def _consumers(consumers: Mapping[str, Any]) -> Table:
    table = _table("CONSUMERS OF", "PODS READY", "LAG")
    for each in (consumers.get("trades"), consumers.get("bookTicker")):
        if each:
            table.add_row(each["topic"], f"{each['ready']}/{each['desired']}", _text(each.get("lag")))
    return table


def preview(console: Console, found: Preview) -> None:
    """Print a preview."""
    if found.empty:
        console.print(f"MarketFeed {found.feed}: nothing would change")
        return
    console.print(f"MarketFeed {found.feed}: {'would be created' if found.new else 'would be changed'}")
    for word, symbols in (("added", found.added), ("removed", found.removed)):
        if symbols:
            console.print(f"  {_count(symbols)} {word}: {_few(symbols)}")
    _moves(console, found)
    if found.shards:
        table = _table("SHARD", "SYMBOLS NOW", "THEN", "")
        for shard, (now, then) in found.shards.items():
            table.add_row(shard, str(now), str(then), "new" if not now else "removed" if not then else "")
        console.print(table)
    _consequences(console, found)


def _consequences(console: Console, found: Preview) -> None:
    if found.settings:
        console.print("  settings:")
        for path, (now, then) in found.settings.items():
            console.print(f"    {path}: {_text(now)} -> {_text(then)}")
    for word, objects in (("created", found.created), ("deleted", found.deleted)):
        if objects:
            console.print(f"  {word}:")
        for kind, several in groupby(objects, key=lambda each: each[0]):
            console.print(f"    {kind}: {_few([name for _, name in several])}")
    if found.migrated:
        console.print("  the schema is migrated before consumers start")
    if not found.new:
        console.print(f"  rolling restart of pods: {_few(found.restarted) if found.restarted else 'none'}")
    if found.paused:
        console.print("  spec.paused is true: no change is applied until it is false")


def _moves(console: Console, found: Preview) -> None:
    if not found.moved:
        return
    console.print(
        f"  {_count(found.moved)} to move; the old shard keeps each until it is live in the new one:"
    )
    for symbol, (old, new) in list(found.moved.items())[:MAX_LISTED]:
        console.print(f"    {symbol}  {old} -> {new}")
    if len(found.moved) > MAX_LISTED:
        console.print(f"    and {len(found.moved) - MAX_LISTED} more")


def _conditions(feed: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {each["type"]: each for each in feed.get("status", {}).get("conditions", [])}


def _table(*columns: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style="")
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _text(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return "-" if value is None else str(value)


def _count(symbols: Sized) -> str:
    return "1 symbol" if len(symbols) == 1 else f"{len(symbols)} symbols"


def _few(symbols: Sequence[str]) -> str:
    more = f" and {len(symbols) - MAX_LISTED} more" if len(symbols) > MAX_LISTED else ""
    return ", ".join(symbols[:MAX_LISTED]) + more
