"""What the database knows to be stored, read into `Mark`s."""

from collections.abc import Sequence
from dataclasses import replace

from marketfeed_consumers.database.tables import high_water_marks, missing_trades, trades
from marketfeed_consumers.planning.plan import MarkKey
from marketfeed_consumers.planning.stored_ranges import NOTHING, Key, Mark, Missing
from marketfeed_consumers.storage.transaction import Connection


def load_marks(connection: Connection, keys: Sequence[MarkKey]) -> dict[MarkKey, Mark]:
    """The marks of `keys`, in one snapshot; `NOTHING` for a symbol that was never stored."""
    rows = connection.execute(
        high_water_marks.LOAD, [[key[at] for key in keys] for at in range(4)]
    ).fetchall()
    symbols = [key[1:] for key in keys if key[0] == trades.NAME]
    missing: dict[Key, list[Missing]] = {}
    if symbols:
        spans = connection.execute(missing_trades.LOAD, [[key[at] for key in symbols] for at in range(3)])
        for venue, symbol, id_series, *span in spans:
            missing.setdefault((venue, symbol, id_series), []).append(Missing(*span))
    connection.rollback()
    found = {
        (table, venue, symbol, id_series): replace(
            Mark(*mark), missing=tuple(missing.get((venue, symbol, id_series), ()))
        )
        if table == trades.NAME
        else Mark(*mark)
        for table, venue, symbol, id_series, *mark in rows
    }
    return {key: found.get(key, NOTHING) for key in keys}
