"""Ledger: what the market produced per symbol, delivered or not. Tests and audits compare with it."""

import msgspec

from marketfeed_simulator.frames import Frame
from marketfeed_simulator.history import TradeHistory


class SymbolLedger(msgspec.Struct):
    """What one symbol's market produced. Ids are None before the first message."""

    trades: int = 0
    first_trade_id: int | None = None
    last_trade_id: int | None = None
    absent_trade_ids: list[tuple[int, int]] = []
    """Ranges, both ends included, between first and last that do not exist at the venue."""
    quotes: int = 0
    first_update_id: int | None = None
    last_update_id: int | None = None
    repeated_frames: int = 0
    """Frames with a known trade id, or an update id that is not newer."""
    other_frames: int = 0


class Exchange:
    """What the market produced so far: the ledger, and the history and newest quotes for REST.

    Args:
        keep_trades: minimum number of trades per symbol in the history; 0 keeps all.
    """

    def __init__(self, keep_trades: int) -> None:
        self.symbols: dict[str, SymbolLedger] = {}
        self.histories: dict[str, TradeHistory] = {}
        self.quotes: dict[str, Frame] = {}
        self._keep_trades = keep_trades

    def record(self, frame: Frame) -> None:
        """Record a frame that the market produced."""
        entry = self.symbols.get(frame.symbol)
        if entry is None:
            entry = self.symbols[frame.symbol] = SymbolLedger()
            self.histories[frame.symbol] = TradeHistory(self._keep_trades)
        if frame.kind == "quote":
            if self._quote(entry, frame.id):
                self.quotes[frame.symbol] = frame
        elif frame.trade is not None:
            if self.histories[frame.symbol].add(frame.trade):
                self._trade(entry, frame.id)
            else:
                entry.repeated_frames += 1
        else:
            entry.other_frames += 1

    def restart(self, symbol: str) -> None:
        """Drop the ledger and the history of a symbol whose ids restart."""
        self.symbols.pop(symbol, None)
        self.histories.pop(symbol, None)

    @staticmethod
    def _quote(entry: SymbolLedger, update_id: int) -> bool:
        if entry.last_update_id is None:
            entry.first_update_id = update_id
        elif update_id <= entry.last_update_id:
            entry.repeated_frames += 1
            return False
        entry.quotes += 1
        entry.last_update_id = update_id
        return True

    @staticmethod
    def _trade(entry: SymbolLedger, trade_id: int) -> None:
        entry.trades += 1
        if entry.first_trade_id is None or entry.last_trade_id is None:
            entry.first_trade_id = entry.last_trade_id = trade_id
            return
        if trade_id > entry.last_trade_id:
            if trade_id > entry.last_trade_id + 1:
                entry.absent_trade_ids.append((entry.last_trade_id + 1, trade_id - 1))
            entry.last_trade_id = trade_id
            return
        # Out of order, as in a recording made over two connections: the id is not absent after all.
        entry.absent_trade_ids = without(entry.absent_trade_ids, trade_id)
        if trade_id < entry.first_trade_id:
            if trade_id < entry.first_trade_id - 1:
                entry.absent_trade_ids.insert(0, (trade_id + 1, entry.first_trade_id - 1))
            entry.first_trade_id = trade_id


def without(ranges: list[tuple[int, int]], number: int) -> list[tuple[int, int]]:
    """Return `ranges` (both ends included) without `number`."""
    kept: list[tuple[int, int]] = []
    for low, high in ranges:
        if not low <= number <= high:
            kept.append((low, high))
            continue
        kept += [part for part in ((low, number - 1), (number + 1, high)) if part[0] <= part[1]]
    return kept
