"""Startup checks with the venue: valid symbols, and the first trade id of each."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TypeVar

from marketfeed_service import logs
from marketfeed_service.errors import StartupError
from marketfeed_service.settings import parse_time_us
from marketfeed_workers.kafka.recovery import RecoveredState
from marketfeed_workers.settings import WorkerSettings
from marketfeed_workers.stream.symbol_flow import SymbolFlow
from marketfeed_workers.validate import Validation, readable
from marketfeed_workers.venues.errors import Limited, Refused, Unreachable
from marketfeed_workers.venues.venue import SymbolInfo, VenueRest

log = logs.get(__name__)

T = TypeVar("T")


async def retry_until_deadline(settings: WorkerSettings, ask: Callable[[], Awaitable[T]]) -> T:
    """Return the response of a request, retried until START_DEADLINE_SECONDS have passed.

    Raises:
        StartupError: no response within the deadline, or the venue refuses this address.
    """
    deadline = time.monotonic() + settings.start_deadline_seconds
    waiting = logs.Episode(log, "waiting for the venue", "venue responded")
    while True:
        try:
            answer = await ask()
            waiting.end()
            return answer  # noqa: TRY300 - part of the attempt
        except Refused as error:
            raise StartupError(f"{error}; not retried") from None
        except Unreachable as error:
            delay = error.retry_after_seconds if isinstance(error, Limited) else 1.0
            remaining = deadline - time.monotonic()
            if delay > remaining:
                raise StartupError(
                    f"the venue did not respond within {settings.start_deadline_seconds:g} s: {error}; check "
                    "BINANCE_REST_BASE, raise START_DEADLINE_SECONDS, or set VALIDATE_ON_START=false"
                ) from None
            waiting.begin(reason=str(error), seconds_left=round(remaining))
            await asyncio.sleep(delay)


async def validate_symbols(settings: WorkerSettings, rest: VenueRest, symbols: Sequence[str]) -> Validation:
    """Validate symbols against the venue's listing and log the rejected ones.

    Raises:
        StartupError: the venue did not respond.
    """
    listed = await retry_until_deadline(settings, rest.symbols) if settings.validate_on_start else None
    chosen = await retry_until_deadline(settings, lambda: readable_symbols(rest, symbols, listed))
    for symbol, reason in chosen.refused.items():
        log.error("symbol rejected", symbol=symbol, reason=reason)
    return chosen


async def readable_symbols(
    rest: VenueRest, symbols: Sequence[str], listed: Mapping[str, SymbolInfo] | None
) -> Validation:
    """Validate as `readable`, but confirm a symbol without a valid listing entry by name."""
    refused = readable(symbols, listed).refused
    refused = {symbol: reason for symbol, reason in refused.items() if not await rest.is_listed(symbol)}
    return Validation([symbol for symbol in symbols if symbol not in refused], refused)


def no_symbols_error(chosen: Validation) -> StartupError:
    """Return the error of a worker whose symbols were all rejected."""
    reasons = "; ".join(f"{symbol} is {reason}" for symbol, reason in chosen.refused.items())
    return StartupError(f"no valid symbol in BINANCE_SYMBOLS: {reasons}")


def resume(recovered: RecoveredState, flow: SymbolFlow, first_id: int | None) -> None:
    """Resume a symbol from its checkpoint in Kafka, or without one from `first_id`."""
    known = recovered.progress.get(flow.symbol)
    checkpoint = recovered.checkpoints.get(flow.symbol)
    quotes = recovered.quotes.get(flow.symbol)
    if checkpoint is not None or quotes is not None:
        flow.resume_series(checkpoint, quotes)
    if known is not None and checkpoint is not None:
        acknowledged_us = recovered.acknowledged_time_us[flow.symbol]
        gaps = [gap for gap in recovered.gaps[flow.symbol].values() if gap.id_series == checkpoint.id_series]
        if checkpoint.next_id is not None:
            known = checkpoint.next_id - 1
        flow.resume(known, gaps, acknowledged_us)
        log.info("symbol resumed", symbol=flow.symbol, after_trade_id=known, missing=flow.missing)
        return
    # Gaps of a later series without a checkpoint: that topic was lost. Series 0 must not begin a second time.
    flow.begin_in_series(recovered.newest_series(flow.symbol))
    if first_id is not None:
        flow.resume(first_id - 1, [])
        log.info("symbol starts in the past", symbol=flow.symbol, from_trade_id=first_id)


async def first_id(settings: WorkerSettings, rest: VenueRest, symbol: str) -> int | None:
    """Return the first trade id of a symbol without a checkpoint by BACKFILL_FROM; None: the next trade.

    Raises:
        StartupError: the venue did not respond.
    """
    start = settings.backfill_from
    if not start:
        return None
    if start.isdecimal():
        # Each symbol has its own ids. With an id in the future every trade below it would be skipped as a duplicate.
        newest = await retry_until_deadline(settings, lambda: rest.newest_trade(symbol))
        if newest is not None and int(start) <= newest.trade_id:
            return int(start)
        log.warning(
            "BACKFILL_FROM is above the newest trade id; starting now",
            symbol=symbol,
            backfill_from=start,
            newest_trade_id=newest.trade_id if newest is not None else None,
        )
        return None
    found = await retry_until_deadline(settings, lambda: rest.first_id_since(symbol, parse_time_us(start)))
    if found is None:
        log.warning(
            "no trade within an hour of BACKFILL_FROM; starting now", symbol=symbol, backfill_from=start
        )
    return found
