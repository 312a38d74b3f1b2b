"""Which of the symbols that a user asks for the venue trades. The venue is asked first, because subscribing to a
symbol that does not exist succeeds and stays silent."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from marketfeed_workers.venues.venue import SymbolInfo


class Validation(NamedTuple):
    """The symbols to read, and those left out -> the reason."""

    accepted: list[str]
    refused: dict[str, str]


def validate(symbols: Sequence[str], listed: Mapping[str, SymbolInfo] | None) -> Validation:
    """Sort `symbols` by what the venue lists; the order asked for is kept. None listed: all are accepted."""
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
    """Sort `symbols` likewise, but accept one that is halted: subscribed, nothing of its opening is missed."""
    if listed is None:
        return Validation(list(symbols), {})
    refused = {
        symbol: reason for symbol, reason in validate(symbols, listed).refused.items() if symbol not in listed
    }
    return Validation([symbol for symbol in symbols if symbol not in refused], refused)


def table(symbols: tuple[str, ...], listed: Mapping[str, SymbolInfo]) -> str:
    """A line a symbol: name, the venue's status, whether it would be read."""
    width = max(len("SYMBOL"), *(len(symbol) for symbol in symbols))
    refused = validate(symbols, listed).refused
    lines = [f"{'SYMBOL':<{width}}  {'STATUS':<14}  RESULT"]
    for symbol in symbols:
        status = listed[symbol].status if symbol in listed else "-"
        result = refused.get(symbol, "ok") if symbol in listed else f"left out: {refused[symbol]}"
        lines.append(f"{symbol:<{width}}  {status:<14}  {result}")
    return "\n".join(lines)
