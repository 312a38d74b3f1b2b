"""Command ``marketfeed status``: show status of workers and consumers."""

import asyncio
import json
from collections.abc import Mapping, Sequence
from typing import Any

import aiohttp
import msgspec
import rich.box
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from marketfeed_cli import formatting
from marketfeed_cli.observe import MAX_STATUS_BYTES, REQUEST_TIMEOUT
from marketfeed_cli.screen import Output, Screen
from marketfeed_cli.terminal import shown
from marketfeed_service.http_body import BadBody, decode_body
from marketfeed_wire.codec import INVALID_MESSAGE_ERRORS
from marketfeed_wire.status import ConsumerStatus, StreamStatus, WorkerStatus

ServiceStatus = WorkerStatus | ConsumerStatus


async def status(urls: Sequence[str], output: Output) -> int:
    """Print the status of each service; return 0 if all of them are ready, otherwise 1."""
    bases = [_base(url) for url in urls]
    async with aiohttp.ClientSession(timeout=REQUEST_TIMEOUT) as session:
        results = await asyncio.gather(*(_fetch(session, base) for base in bases))
    if output == "json":
        entries = [
            {"url": base, **({"error": result} if isinstance(result, str) else msgspec.to_builtins(result))}
            for base, result in zip(bases, results, strict=True)
        ]
        print(json.dumps(entries, indent=2))
    else:
        screen = Screen("text")
        for base, result in zip(bases, results, strict=True):
            for renderable in _render(base, _printable(result)):
                screen.line(renderable)
    return 0 if all(not isinstance(result, str) and result.ready for result in results) else 1


def _base(url: str) -> str:
    base = url if "://" in url else f"http://{url}"
    return base.rstrip("/").removesuffix("/status").removesuffix("/metrics")


async def _fetch(session: aiohttp.ClientSession, base: str) -> ServiceStatus | str:
    """Return the service's status, or the error."""
    try:
        async with session.get(f"{base}/status", allow_redirects=False) as response:
            if response.status != 200:
                return f"returned HTTP {response.status} for /status"
            return await decode_body(response, decode_status, max_bytes=MAX_STATUS_BYTES)
    except aiohttp.InvalidURL:
        return "is not a valid URL"
    except TimeoutError:
        return "did not respond in time"
    except (BadBody, aiohttp.ClientError, OSError, ValueError) as error:
        return f"is unreachable: {shown(str(error))}"


def _printable(result: ServiceStatus | str) -> ServiceStatus | str:
    if isinstance(result, str):
        return result
    return msgspec.convert(shown(msgspec.to_builtins(result)), type(result))


def decode_status(body: bytes) -> ServiceStatus | str:
    """Decode the status of a worker or consumer; return the error if it is neither."""
    try:
        fields: Any = msgspec.json.decode(body)
        if isinstance(fields, dict) and "connections" in fields:
            return msgspec.convert(fields, WorkerStatus)
        return msgspec.convert(fields, ConsumerStatus)
    except (*INVALID_MESSAGE_ERRORS, msgspec.MsgspecError) as error:
        return f"/status is not that of a marketfeed service: {shown(str(error))}"


def _render(base: str, result: ServiceStatus | str) -> list[RenderableType]:
    if isinstance(result, str):
        return [Text.assemble((base, "bold"), "  ", (result, "red")), Text()]
    if isinstance(result, WorkerStatus):
        name, tables = f"worker {result.version}, {result.venue}, shard {result.shard}", _worker(result)
    else:
        name, tables = f"consumer {result.version}, group {result.group}", _consumer(result)
    state = ("ready", "green") if result.ready else (f"not ready: {result.reason}", "red")
    return [Text.assemble((base, "bold"), f"  {name}  ", state), *tables]


def _table(first: str, *headings: str) -> Table:
    table = Table(box=rich.box.SIMPLE_HEAD, pad_edge=False)
    table.add_column(first, style="bold")
    for heading in headings:
        table.add_column(heading, justify="right")
    return table


def _worker(status: WorkerStatus) -> list[RenderableType]:
    symbols = _table("symbol", "trades", "quotes", "last trade id", "missing", "duplicates", "streams")
    for symbol, each in status.symbols.items():
        last = formatting.NO_VALUE if each.last_trade_id is None else str(each.last_trade_id)
        counts = map(formatting.count, (each.missing, each.duplicates))
        cells = (formatting.count(each.trades), formatting.count(each.quotes), last, *counts)
        symbols.add_row(symbol, *cells, _streams(each.streams))
    topics = _table("topic", "received", "acknowledged", "failed")
    for topic, received in status.received.items():
        numbers = (received, status.acknowledged.get(topic, 0), status.failed.get(topic, 0))
        topics.add_row(topic, *map(formatting.count, numbers))
    connections = _table("connection", "state", "streams", "reconnects", "reason")
    for line in status.connections:
        connections.add_row(
            str(line.id),
            line.state,
            formatting.count(line.streams),
            formatting.count(line.reconnects),
            line.reason,
        )
    excluded = [
        Text(f"excluded: {symbol}: {reason}", "red") for symbol, reason in status.refused_symbols.items()
    ]
    return [symbols, topics, connections, *excluded]


def _streams(streams: Mapping[str, StreamStatus]) -> Text:
    """Return the state of each stream, with the time since its last message if it is not ready."""
    text = Text()
    for name, stream in streams.items():
        ready = stream.state in ("live", "idle")
        silent = "" if ready else f" for {stream.silent_seconds:.0f} s"
        text.append(f"{', ' if text else ''}{name} ").append(
            f"{stream.state}{silent}", "green" if ready else "red"
        )
    return text


def _consumer(status: ConsumerStatus) -> list[RenderableType]:
    partitions = _table("partition", "committed offset", "log end offset", "lag")
    for each in status.partitions:
        lag = None if each.end_offset is None else max(0, each.end_offset - each.next_offset)
        numbers = (each.next_offset, each.end_offset, lag)
        partitions.add_row(f"{each.topic}[{each.partition}]", *map(formatting.count, numbers))
    tables = _table("table", "inserted", "duplicates skipped")
    for name, rows in status.inserted.items():
        tables.add_row(name, formatting.count(rows), formatting.count(status.duplicates.get(name, 0)))
    latency = (
        f"wire to commit: p50 {formatting.duration(status.latency_p50_us)}, p99 "
        f"{formatting.duration(status.latency_p99_us)}; dead letters: {status.dead_letters:,}"
    )
    return [partitions, tables, Text(latency), Text()]
