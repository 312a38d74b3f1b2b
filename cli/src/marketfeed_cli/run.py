"""``marketfeed demo`` and ``marketfeed replay``: one pipeline, watched, ended in order, and its closing report."""

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

from marketfeed_chassis.settings import read
from marketfeed_cli import market, report_text
from marketfeed_cli.brake import Brake, behind
from marketfeed_cli.closing import STILL_SECONDS, Stillness, caught_up, conclude, is_connecting
from marketfeed_cli.market import Market, Source
from marketfeed_cli.process import POLL_SECONDS, Parts
from marketfeed_cli.report import Report, make_report
from marketfeed_cli.scratch import scratch_folder
from marketfeed_cli.screen import Output, Screen
from marketfeed_cli.settings import OwnParts
from marketfeed_cli.stack import Stack
from marketfeed_cli.watching import Watcher, frames_done

LOOK_SECONDS: Final = 0.5


@dataclass(frozen=True)
class Options:
    """What demo and replay have alike."""

    keep: bool
    output: Output


async def demo(
    options: Options, source: Source, symbols: tuple[str, ...], seconds: float, environment: Mapping[str, str]
) -> int:
    """Run a pipeline for `seconds`; the exit code."""
    own = read(OwnParts, environment)
    screen = Screen(options.output)
    screen.line(f"[bold]marketfeed demo[/bold], {seconds:g} s")
    chosen = await market.choose(source, symbols, own, environment)
    return await _run(options, screen, own, chosen, seconds, environment)


async def replay(options: Options, file: Path, environment: Mapping[str, str]) -> int:
    """Run a recording through a pipeline as fast as it goes; the exit code."""
    own = read(OwnParts, environment)
    screen = Screen(options.output)
    chosen = market.recorded(file, speed="max")
    screen.line(f"[bold]marketfeed replay[/bold] of {file.name}, {chosen.frames:,} frames")
    return await _run(options, screen, own, chosen, None, environment)


async def _run(
    options: Options,
    screen: Screen,
    own: OwnParts,
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
                return await _live_through(stack, options, screen, seconds)
            finally:
                await stack.leave()


async def _live_through(stack: Stack, options: Options, screen: Screen, seconds: float | None) -> int:
    await stack.bring_up(screen)
    began = time.monotonic()
    if seconds is None:
        await _follow_replay(stack, screen)
    else:
        await _follow_demo(stack, screen, seconds)
    facts = await conclude(stack)
    report = make_report(facts, source=stack.market.title, seconds=time.monotonic() - began)
    if options.keep:
        await _go_on(stack)
    places = stack.places() if options.keep else {}
    _tell(report, options, screen, places)
    if options.keep:
        await _until_interrupted(stack)
    return report.exit_code


async def _follow_demo(stack: Stack, screen: Screen, seconds: float) -> None:
    """Show the pipeline until `seconds` have passed, or its recording is at its end and stored."""
    async with await psycopg.AsyncConnection.connect(stack.dsn, autocommit=True) as connection:
        watcher = Watcher(stack, connection, total_seconds=seconds)
        with screen.live() as show:
            while True:
                stack.parts.check()
                snapshot = await watcher.look()
                if snapshot is not None:
                    show(snapshot)
                if watcher.seconds >= seconds or await _is_at_end(stack):
                    return
                await asyncio.sleep(min(LOOK_SECONDS, max(0.0, seconds - watcher.seconds)))


async def _follow_replay(stack: Stack, screen: Screen) -> None:
    """Show how far the recording is stored, until all of it is, or nothing moves any more."""
    began, stillness = time.monotonic(), Stillness()
    brake = Brake(stack.simulator) if stack.broker is not None and stack.simulator is not None else None
    with screen.progress(stack.market.frames) as show:
        while True:
            stack.parts.check()
            worker, consumers = await stack.worker_status(), await stack.consumer_statuses()
            if brake is not None and worker is not None:
                brake.adjust(worker, consumers)
            if brake is None or not brake.pulled:  # standing still, the simulator does not answer
                ledger = await stack.ledger()
                if ledger is not None and worker is not None:
                    done = min(frames_done(ledger, consumers), stack.market.frames)
                    show(done, time.monotonic() - began)
                    still = stillness.seconds(done, held=not ledger.finished or is_connecting(worker))
                    stored = caught_up(worker, ledger) and behind(worker, consumers) <= 0
                    if ledger.finished and (stored or still > STILL_SECONDS):
                        return
            await asyncio.sleep(POLL_SECONDS)


async def _is_at_end(stack: Stack) -> bool:
    if stack.market.kind != "recording":
        return False
    worker, ledger = await stack.worker_status(), await stack.ledger()
    return worker is not None and ledger is not None and ledger.finished and caught_up(worker, ledger)


def _tell(report: Report, options: Options, screen: Screen, places: Mapping[str, str]) -> None:
    screen.line(report_text.render(report))
    if options.output == "json":
        body = msgspec.to_builtins(report) | ({"reach": places} if places else {})
        print(json.dumps(body, indent=2), flush=True)
    if places:
        screen.reach(places)


async def _go_on(stack: Stack) -> None:
    """Let data flow again after the report was made; a recording has nothing more to give."""
    if stack.market.kind == "generated":
        await stack.set_market("resume")
    if stack.market.kind != "recording":
        await stack.bring_up_worker()


async def _until_interrupted(stack: Stack) -> None:
    try:
        while True:
            stack.parts.check()
            await asyncio.sleep(LOOK_SECONDS)
    except asyncio.CancelledError:
        # Ctrl-C is how this is meant to end; the report has been given and its verdict is the exit code.
        task = asyncio.current_task()
        if task is not None:
            task.uncancel()
