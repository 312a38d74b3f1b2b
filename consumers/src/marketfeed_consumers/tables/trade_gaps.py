"""trade_gaps: what workers found out about jumps in the trade ids; the key is (venue, symbol,
id_series, first_id).

A worker tells a gap's story in several messages; the newest counts, in whatever order they come. What is missing in
the table itself is in missing_trades: this one says why.
"""

from typing import Final

import msgspec

from marketfeed_wire import Gap

NAME: Final = "trade_gaps"
KEY: Final = ("venue", "symbol", "id_series", "first_id")
COLUMNS: Final = KEY + tuple(name for name in Gap.__struct_fields__ if name not in KEY)

MERGE: Final = f"""
INSERT INTO trade_gaps AS held ({", ".join(COLUMNS)})
VALUES ({", ".join(f"%({name})s" for name in COLUMNS)})
ON CONFLICT ({", ".join(KEY)}) DO UPDATE SET
    {", ".join(f"{name} = excluded.{name}" for name in COLUMNS[len(KEY) :])}
WHERE excluded.updated_time_us > held.updated_time_us
"""  # noqa: S608 - names of columns, all ours


def parameters(gap: Gap) -> dict[str, object]:
    """What `MERGE` takes; ranges as JSON, [[first, last], …]."""
    fields = {name: getattr(gap, name) for name in COLUMNS}
    return {
        **fields,
        "missing": msgspec.json.encode(gap.missing).decode(),
        "absent": msgspec.json.encode(gap.absent).decode(),
    }
