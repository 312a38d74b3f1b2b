"""Defects in the consumer's SQL, which only sessions over PostgreSQL can detect."""

from typing import Final

from marketfeed_simtest.mutants import Mutant


def _mutant(name: str, file: str, old: str, new: str, survives: str = "") -> Mutant:
    return Mutant(f"sql: {name}", file, old, new, survives, "marketfeed_consumers", with_postgres=True)


SQL_MUTANTS: Final[tuple[Mutant, ...]] = (
    _mutant(
        "a candle's high is the lowest of its batches",
        "database/tables/candles_1m.py",
        "high = greatest(held.high, excluded.high)",
        "high = least(held.high, excluded.high)",
    ),
    _mutant(
        "a candle's volume is that of its last batch",
        "database/tables/candles_1m.py",
        "    volume = held.volume + excluded.volume",
        "    volume = excluded.volume",
    ),
    _mutant(
        "an older quote replaces the top of the book",
        "database/tables/top_of_book.py",
        "WHERE (excluded.id_series, excluded.update_id) > (held.id_series, held.update_id)",
        "WHERE excluded.update_id > held.update_id",
    ),
    _mutant(
        "the top of the book of a rebuild is of the first id series",
        "admin/rebuild.py",
        "ORDER BY id_series DESC, update_id DESC",
        "ORDER BY update_id DESC",
    ),
    _mutant(
        "rows of earlier batches are not counted",
        "database/tables/high_water_marks.py",
        "row_count = held.row_count + excluded.row_count",
        "row_count = excluded.row_count",
    ),
    _mutant(
        "every missing range of a symbol is closed with one",
        "database/tables/missing_trades.py",
        "\n    AND g.first_trade_id = n.first_trade_id\n",
        "\n",
    ),
    _mutant(
        "an advance ignores the epoch",
        "database/tables/consumer_offsets.py",
        "WHERE held.epoch = excluded.epoch AND held.next_offset",
        "WHERE held.next_offset",
        survives="the offset is compared and set as well: of two owners one stores what follows it, the other ends; "
        "the epoch decides which",
    ),
    _mutant(
        "the dead letter of a missing trade is deleted with the others",
        "database/tables/dead_letters.py",
        ") AND NOT EXISTS (",
        ") OR NOT EXISTS (",
    ),
    _mutant(
        "retention deletes rows whatever their time",
        "admin/retention.py",
        "    AND {time} >= %(earliest_us)s AND {time} < %(before_us)s\n",
        "",
    ),
    _mutant(
        "a second dead letter of one offset replaces the first",
        "database/tables/dead_letters.py",
        "ON CONFLICT DO NOTHING\n",
        'ON CONFLICT (topic, topic_id, "partition", kafka_offset) DO UPDATE SET value = NULL\n',
    ),
)
