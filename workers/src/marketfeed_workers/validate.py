"""Validation of symbols against the venue's listing: a subscription to an unknown symbol succeeds and has no data."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from marketfeed_workers.venues.venue import SymbolInfo


class Validation(NamedTuple):
    """Accepted symbols, and rejected symbols -> reason."""

    accepted: list[str]
    refused: dict[str, str]


def validate(symbols: Sequence[str], listed: Mapping[str, SymbolInfo] | None) -> Validation:
    """Accept the `symbols` that trade, in their order; with `listed` None all of them."""
    if listed is None:
        return Validation(list(symbols), {})
    refused: dict[str, str] = {}
    for symbol in symbols:
        info = listed.get(symbol)
        if info is None:
            refused[symbol] = "unknown to the venue"
        elif not info.trading:
            refused[symbol] = f"not trading: {info.status}"
    return Validation([symbol for symbol in symbols if symbol not in refused], refused)


def readable(symbols: Sequence[str], listed: Mapping[str, SymbolInfo] | None) -> Validation:
    """Accept the `symbols` that are listed, also halted ones: their first trades must not be missed."""
    if listed is None:
        return Validation(list(symbols), {})
    refused = {
        symbol: reason for symbol, reason in validate(symbols, listed).refused.items() if symbol not in listed
    }
    return Validation([symbol for symbol in symbols if symbol not in refused], refused)


def table(symbols: tuple[str, ...], listed: Mapping[str, SymbolInfo]) -> str:
    """Return a table of symbols with the venue's status and the result of the validation."""
    width = max(len("SYMBOL"), *(len(symbol) for symbol in symbols))
    refused = validate(symbols, listed).refused
    lines = [f"{'SYMBOL':<{width}}  {'STATUS':<14}  RESULT"]
    for symbol in symbols:
        status = listed[symbol].status if symbol in listed else "-"
        result = refused.get(symbol, "ok") if symbol in listed else f"rejected: {refused[symbol]}"
        lines.append(f"{symbol:<{width}}  {status:<14}  {result}")
    return "\n".join(lines)
