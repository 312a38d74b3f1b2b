"""``marketfeed status``: what running workers and consumers tell about themselves."""

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

from marketfeed_chassis.bodies import BadBody, decoded
from marketfeed_cli import figures
from marketfeed_cli.observe import MAX_STATUS_BYTES, REQUEST_TIMEOUT
from marketfeed_cli.screen import Output, Screen
from marketfeed_cli.terminal import shown
from marketfeed_wire.codec import UNREADABLE
from marketfeed_wire.status import ConsumerStatus, StreamStatus, WorkerStatus

Answer = WorkerStatus | ConsumerStatus


async def status(urls: Sequence[str], output: Output) -> int:
    """Ask each service, print its answer; 0 when all of them are ready, otherwise 1."""
    bases = [_base(url) for url in urls]
    async with aiohttp.ClientSession(timeout=REQUEST_TIMEOUT) as session:
        answers = await asyncio.gather(*(_ask(session, base) for base in bases))
    if output == "json":
        entries = [
            {"url": base, **({"error": answer} if isinstance(answer, str) else msgspec.to_builtins(answer))}
            for base, answer in zip(bases, answers, strict=True)
        ]
        print(json.dumps(entries, indent=2))
    else:
        screen = Screen("text")
        for base, answer in zip(bases, answers, strict=True):
            for piece in _render(base, _printable(answer)):
                screen.line(piece)
    return 0 if all(not isinstance(answer, str) and answer.ready for answer in answers) else 1


def _base(url: str) -> str:
    base = url if "://" in url else f"http://{url}"
    return base.rstrip("/").removesuffix("/status").removesuffix("/metrics")


async def _ask(session: aiohttp.ClientSession, base: str) -> Answer | str:
    """The service's answer, or why there is none."""
    try:
        async with session.get(f"{base}/status", allow_redirects=False) as response:
            if response.status != 200:
                return f"answered HTTP {response.status} to /status"
            return await decoded(response, read_answer, max_bytes=MAX_STATUS_BYTES)
    except aiohttp.InvalidURL:
        return "is no URL"
    except TimeoutError:
        return "did not answer in time"
    except (BadBody, aiohttp.ClientError, OSError, ValueError) as error:
        return f"cannot be reached: {shown(str(error))}"


def _printable(answer: Answer | str) -> Answer | str:
    if isinstance(answer, str):
        return answer
    return msgspec.convert(shown(msgspec.to_builtins(answer)), type(answer))


def read_answer(body: bytes) -> Answer | str:
    """The status in `body`, whichever service's it is, or why it is none."""
    try:
        fields: Any = msgspec.json.decode(body)
        if isinstance(fields, dict) and "connections" in fields:
            return msgspec.convert(fields, WorkerStatus)
        return msgspec.convert(fields, ConsumerStatus)
    except (*UNREADABLE, msgspec.MsgspecError) as error:
        return f"its /status is not that of a marketfeed service: {shown(str(error))}"


def _render(base: str, answer: Answer | str) -> list[RenderableType]:
    if isinstance(answer, str):
        return [Text.assemble((base, "bold"), "  ", (answer, "red")), Text()]
    if isinstance(answer, WorkerStatus):
        name, tables = f"worker {answer.version}, {answer.venue}, shard {answer.shard}", _worker(answer)
    else:
        name, tables = f"consumer {answer.version}, group {answer.group}", _consumer(answer)
    state = ("ready", "green") if answer.ready else (f"not ready: {answer.reason}", "red")
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
        last = figures.NOTHING if each.last_trade_id is None else str(each.last_trade_id)
        counts = map(figures.count, (each.missing, each.duplicates))
        cells = (figures.count(each.trades), figures.count(each.quotes), last, *counts)
        symbols.add_row(symbol, *cells, _streams(each.streams))
    topics = _table("topic", "received", "acknowledged", "failed")
    for topic, received in status.received.items():
        numbers = (received, status.acknowledged.get(topic, 0), status.failed.get(topic, 0))
        topics.add_row(topic, *map(figures.count, numbers))
    connections = _table("connection", "state", "streams", "reconnects", "reason")
    for line in status.connections:
        connections.add_row(
            str(line.id), line.state, figures.count(line.streams), figures.count(line.reconnects), line.reason
        )
    left_out = [Text(f"left out: {symbol}: {why}", "red") for symbol, why in status.refused_symbols.items()]
    return [symbols, topics, connections, *left_out]


def _streams(streams: Mapping[str, StreamStatus]) -> Text:
    """The state of each stream, and for how long one that is not ready has been silent."""
    told = Text()
    for name, stream in streams.items():
        ready = stream.state in ("live", "idle")
        silent = "" if ready else f" for {stream.silent_seconds:.0f} s"
        told.append(f"{', ' if told else ''}{name} ").append(
            f"{stream.state}{silent}", "green" if ready else "red"
        )
    return told


def _consumer(status: ConsumerStatus) -> list[RenderableType]:
    partitions = _table("partition", "stored up to", "ends at", "behind")
    for each in status.partitions:
        behind = None if each.end_offset is None else max(0, each.end_offset - each.next_offset)
        numbers = (each.next_offset, each.end_offset, behind)
        partitions.add_row(f"{each.topic}[{each.partition}]", *map(figures.count, numbers))
    tables = _table("table", "added", "stored before")
    for name, rows in status.inserted.items():
        tables.add_row(name, figures.count(rows), figures.count(status.duplicates.get(name, 0)))
    latency = (
        f"wire to commit: p50 {figures.duration(status.latency_p50_us)}, p99 "
        f"{figures.duration(status.latency_p99_us)}; dead letters: {status.dead_letters:,}"
    )
    return [partitions, tables, Text(latency), Text()]
