"""top_of_book: the newest quote of each symbol, of its newest id series; the key is (venue, symbol)."""

from typing import Final

from marketfeed_consumers.database.tables import book_tickers

NAME: Final = "top_of_book"
COLUMNS: Final = book_tickers.COLUMNS

MERGE: Final = f"""
INSERT INTO top_of_book AS held ({", ".join(COLUMNS)})
SELECT * FROM unnest(%s::text[], %s::text[], %s::int[], %s::bigint[], %s::numeric[], %s::numeric[],
    %s::numeric[], %s::numeric[], %s::bigint[], %s::bigint[])
ON CONFLICT (venue, symbol) DO UPDATE SET
    {", ".join(f"{name} = excluded.{name}" for name in COLUMNS[2:])}
WHERE (excluded.id_series, excluded.update_id) > (held.id_series, held.update_id)
"""  # noqa: S608 - names of columns, all ours
"""Replace older quotes by newer ones; takes one array per column."""
