"""Loading of stored ranges from the database."""

from collections.abc import Sequence
from dataclasses import replace

from marketfeed_consumers.database.connections import DatabaseConnection
from marketfeed_consumers.database.tables import high_water_marks, missing_trades, trades
from marketfeed_consumers.planning.plan import RangesKey
from marketfeed_consumers.planning.stored_ranges import EMPTY_RANGES, Key, MissingRange, StoredRanges


def load_stored_ranges(
    connection: DatabaseConnection, keys: Sequence[RangesKey]
) -> dict[RangesKey, StoredRanges]:
    """Return the stored ranges of `keys`, in one snapshot; `EMPTY_RANGES` for a symbol without rows."""
    rows = connection.execute(
        high_water_marks.LOAD, [[key[at] for key in keys] for at in range(4)]
    ).fetchall()
    symbols = [key[1:] for key in keys if key[0] == trades.NAME]
    missing: dict[Key, list[MissingRange]] = {}
    if symbols:
        spans = connection.execute(missing_trades.LOAD, [[key[at] for key in symbols] for at in range(3)])
        for venue, symbol, id_series, *span in spans:
            missing.setdefault((venue, symbol, id_series), []).append(MissingRange(*span))
    connection.rollback()
    found = {
        (table, venue, symbol, id_series): replace(
            StoredRanges(*ranges), missing=tuple(missing.get((venue, symbol, id_series), ()))
        )
        if table == trades.NAME
        else StoredRanges(*ranges)
        for table, venue, symbol, id_series, *ranges in rows
    }
    return {key: found.get(key, EMPTY_RANGES) for key in keys}
