"""Commands ``marketfeed demo`` and ``marketfeed replay``: run a pipeline, drain it and print the final report."""

import asyncio
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import aiohttp
import msgspec
import psycopg
from rich.text import Text

from marketfeed_cli import market, report_text
from marketfeed_cli.drain import SETTLE_SECONDS, StallTimer, caught_up, drain, is_connecting
from marketfeed_cli.market import Market, Source
from marketfeed_cli.process import POLL_SECONDS, Parts
from marketfeed_cli.report import Report, make_report
from marketfeed_cli.sampling import Sampler, frames_done
from marketfeed_cli.scratch import scratch_folder
from marketfeed_cli.screen import Output, Screen
from marketfeed_cli.settings import RunSettings
from marketfeed_cli.stack import Stack
from marketfeed_cli.throttle import Throttle, max_lag
from marketfeed_service.settings import read

REFRESH_SECONDS: Final = 0.5


@dataclass(frozen=True)
class Options:
    """Common options of demo and replay."""

    keep: bool
    output: Output


async def demo(
    options: Options, source: Source, symbols: tuple[str, ...], seconds: float, environment: Mapping[str, str]
) -> int:
    """Run a pipeline for `seconds`; return the exit code.

    Args:
        options: Common options.
        source: Option ``--source``.
        symbols: Option ``--symbols``.
        seconds: Duration.
        environment: Environment variables.
    """
    own = read(RunSettings, environment)
    screen = Screen(options.output)
    screen.line(f"[bold]marketfeed demo[/bold], {seconds:g} s")
    chosen = await market.choose(source, symbols, own, environment)
    return await _run(options, screen, own, chosen, seconds, environment)


async def replay(options: Options, file: Path, environment: Mapping[str, str]) -> int:
    """Replay a recording through a pipeline at maximum speed; return the exit code.

    Args:
        options: Common options.
        file: The recording.
        environment: Environment variables.
    """
    own = read(RunSettings, environment)
    screen = Screen(options.output)
    chosen = market.recorded(file, speed="max")
    screen.line(f"[bold]marketfeed replay[/bold] of {file.name}, {chosen.frames:,} frames")
    return await _run(options, screen, own, chosen, None, environment)


async def _run(
    options: Options,
    screen: Screen,
    own: RunSettings,
    chosen: Market,
    seconds: float | None,
    environment: Mapping[str, str],
) -> int:
    if chosen.note:
        screen.line(Text(chosen.note))
    with scratch_folder() as folder:
        async with Parts(folder / "logs") as parts, aiohttp.ClientSession() as session:
            stack = Stack(parts, session, folder, own=own, market=chosen, environment=environment)
            try:
                return await _run_pipeline(stack, options, screen, seconds)
            finally:
                await stack.delete_temporary_topics()


async def _run_pipeline(stack: Stack, options: Options, screen: Screen, seconds: float | None) -> int:
    await stack.start(screen)
    began = time.monotonic()
    if seconds is None:
        await _follow_replay(stack, screen)
    else:
        await _follow_demo(stack, screen, seconds)
    facts = await drain(stack)
    report = make_report(facts, source=stack.market.title, seconds=time.monotonic() - began)
    if options.keep:
        await _resume(stack)
    endpoints = stack.endpoints() if options.keep else {}
    _print_report(report, options, screen, endpoints)
    if options.keep:
        await _until_interrupted(stack)
    return report.exit_code


async def _follow_demo(stack: Stack, screen: Screen, seconds: float) -> None:
    """Show the pipeline until `seconds` have passed, or its recording has ended and is stored."""
    async with await psycopg.AsyncConnection.connect(stack.dsn, autocommit=True) as connection:
        sampler = Sampler(stack, connection, total_seconds=seconds)
        with screen.live() as show:
            while True:
                stack.parts.check()
                snapshot = await sampler.sample()
                if snapshot is not None:
                    show(snapshot)
                if sampler.seconds >= seconds or await _has_ended(stack):
                    return
                await asyncio.sleep(min(REFRESH_SECONDS, max(0.0, seconds - sampler.seconds)))


async def _follow_replay(stack: Stack, screen: Screen) -> None:
    """Show the progress of a recording until it is stored or there is no progress."""
    began, timer = time.monotonic(), StallTimer()
    embedded = stack.broker is not None
    throttle = Throttle(stack.simulator) if embedded and stack.simulator is not None else None
    with screen.progress(stack.market.frames) as show:
        while True:
            stack.parts.check()
            worker, consumers = await stack.worker_status(), await stack.consumer_statuses()
            if throttle is not None and worker is not None:
                throttle.adjust(worker, consumers)
            if throttle is None or not throttle.paused:  # a paused simulator does not respond
                ledger = await stack.ledger()
                if ledger is not None and worker is not None:
                    done = min(frames_done(ledger, consumers), stack.market.frames)
                    show(done, time.monotonic() - began)
                    idle = timer.seconds(done, reset=not ledger.finished or is_connecting(worker))
                    stored = caught_up(worker, ledger) and max_lag(worker, consumers) <= 0
                    if ledger.finished and (stored or idle > SETTLE_SECONDS):
                        return
            await asyncio.sleep(POLL_SECONDS)


async def _has_ended(stack: Stack) -> bool:
    if stack.market.kind != "recording":
        return False
    worker, ledger = await stack.worker_status(), await stack.ledger()
    return worker is not None and ledger is not None and ledger.finished and caught_up(worker, ledger)


def _print_report(report: Report, options: Options, screen: Screen, endpoints: Mapping[str, str]) -> None:
    screen.line(report_text.render(report))
    if options.output == "json":
        body = msgspec.to_builtins(report) | ({"endpoints": endpoints} if endpoints else {})
        print(json.dumps(body, indent=2), flush=True)
    if endpoints:
        screen.endpoints(endpoints)


async def _resume(stack: Stack) -> None:
    """Resume the data flow after the report, except for a recording, which has ended."""
    if stack.market.kind == "generated":
        await stack.set_market("resume")
    if stack.market.kind != "recording":
        await stack.start_worker()


async def _until_interrupted(stack: Stack) -> None:
    try:
        while True:
            stack.parts.check()
            await asyncio.sleep(REFRESH_SECONDS)
    except asyncio.CancelledError:
        # Ctrl-C is the intended end here; the exit code is that of the report.
        task = asyncio.current_task()
        if task is not None:
            task.uncancel()
