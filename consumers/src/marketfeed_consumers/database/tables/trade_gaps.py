"""trade_gaps: the workers' gap records; the key is (venue, symbol, id_series, first_id).

A gap has several records, of which the newest counts, in any order of arrival. The missing ids of the table itself are
in missing_trades; this table has the reasons.
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

OUTSIDE: Final = """
SELECT g.venue, g.symbol, g.id_series, g.missing, m.first_id, m.last_id, m.first_time_us, m.last_time_us,
    g.after_time_us, g.detected_time_us
FROM trade_gaps AS g LEFT JOIN high_water_marks AS m ON m.table_name = 'trades' AND m.venue = g.venue
    AND m.symbol = g.symbol AND m.id_series = g.id_series AND m.first_id <= m.last_id
WHERE g.missing <> '[]'::jsonb AND (m.first_id IS NULL OR g.first_id < m.first_id OR g.last_id > m.last_id)
    AND (%(venue)s::text IS NULL OR g.venue = %(venue)s) AND (%(symbol)s::text IS NULL OR g.symbol = %(symbol)s)
"""
"""Select gaps outside the stored span, which are not in missing_trades."""


def parameters(gap: Gap) -> dict[str, object]:
    """Return the parameters of `MERGE`; ranges as JSON, [[first, last], …]."""
    fields = {name: getattr(gap, name) for name in COLUMNS}
    return {
        **fields,
        "missing": msgspec.json.encode(gap.missing).decode(),
        "absent": msgspec.json.encode(gap.absent).decode(),
    }
