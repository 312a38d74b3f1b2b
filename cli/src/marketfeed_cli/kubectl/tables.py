"""Status and preview as text a person reads."""

from collections.abc import Sequence, Sized
from typing import Any

from rich import box
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from marketfeed_cli.kubectl.preview import Preview

SHOWN = 20
"""Symbols that are moved or added, named one by one."""


def status(console: Console, feeds: Sequence[dict[str, Any]]) -> None:
    """One line a feed; one feed alone also with its shards, consumers and conditions."""
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
            ready.get("reason", "not seen by an operator yet"),
        )
    console.print(table)
    if len(feeds) == 1:
        console.print(_details(feeds[0]))


def _details(feed: dict[str, Any]) -> RenderableType:
    parts: list[RenderableType] = []
    found = feed.get("status", {})
    if items := found.get("shards", {}).get("items"):
        table = _table("SHARD", "SYMBOLS", "PODS READY", "ASSIGNMENT", "LAST TRADE", "MISSING")
        for item in items:
            applied = "live" if item["applied"] == item["hash"] else "not live yet"
            table.add_row(
                item["name"], str(item["symbols"]), str(item["ready"]), applied, item.get("lastTradeTime", "-"),
                str(item["missingTrades"]),
            )  # fmt: skip
        parts += [Text(), table]
        if (more := found["shards"]["desired"] - len(items)) > 0:
            parts.append(Text(f"and {more} more shards"))
    table = _table("CONDITION", "STATUS", "SINCE", "REASON", "MESSAGE")
    for kind, condition in _conditions(feed).items():
        table.add_row(
            kind,
            condition["status"],
            condition["lastTransitionTime"],
            condition["reason"],
            condition["message"],
        )
    parts += [Text(), table]
    if unknown := found.get("symbols", {}).get("unknown"):
        parts.append(Text(f"\nnot traded by the venue: {', '.join(unknown)}"))
    return Group(*parts)


def preview(console: Console, found: Preview) -> None:
    """What would change, in a few lines and tables."""
    if found.empty:
        console.print(f"MarketFeed {found.feed}: nothing would change")
        return
    console.print(f"MarketFeed {found.feed}: {'would be made' if found.new else 'would be changed'}")
    for word, symbols in (("added", found.added), ("removed", found.removed)):
        if symbols:
            console.print(f"  {_count(symbols)} {word}: {_few(symbols)}")
    _moves(console, found)
    if found.shards:
        table = _table("SHARD", "SYMBOLS NOW", "THEN", "")
        for shard, (now, then) in found.shards.items():
            table.add_row(shard, str(now), str(then), "new" if not now else "goes" if not then else "")
        console.print(table)
    if found.settings:
        console.print("  settings (those of workers and consumers restart their pods in turn):")
        for path, (now, then) in found.settings.items():
            console.print(f"    {path}: {_text(now)} -> {_text(then)}")


def _moves(console: Console, found: Preview) -> None:
    if not found.moved:
        return
    console.print(f"  {_count(found.moved)} to move, read by the old shard until live in the new:")
    for symbol, (old, new) in list(found.moved.items())[:SHOWN]:
        console.print(f"    {symbol}  {old} -> {new}")
    if len(found.moved) > SHOWN:
        console.print(f"    and {len(found.moved) - SHOWN} more")


def _conditions(feed: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {each["type"]: each for each in feed.get("status", {}).get("conditions", [])}


def _table(*columns: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style="")
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _text(value: object) -> str:
    return "-" if value is None else str(value)


def _count(symbols: Sized) -> str:
    return "1 symbol" if len(symbols) == 1 else f"{len(symbols)} symbols"


def _few(symbols: Sequence[str]) -> str:
    more = f" and {len(symbols) - SHOWN} more" if len(symbols) > SHOWN else ""
    return ", ".join(symbols[:SHOWN]) + more
