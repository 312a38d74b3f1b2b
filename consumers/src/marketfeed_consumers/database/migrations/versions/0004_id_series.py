"""Id series: a number in each key that distinguishes ids after a venue has restarted them.

All existing rows are of series 0, and adding the column writes no row. Changing a key rebuilds its index: consumers and
readers of the table wait for it, about a minute for 100 million rows, and the new index takes as much disk space as the
old one until the step is committed. It is one statement, so that CockroachDB does not keep the old key as
an index of its own: https://www.cockroachlabs.com/docs/stable/alter-table
"""

from typing import Final

from alembic import context, op

revision = "0004"
down_revision = "0003"

_KEYS: Final = {
    "trades": "venue, symbol, id_series, trade_id",
    "book_tickers": "venue, symbol, id_series, update_id",
    "candles_1m": "venue, symbol, open_time_us, id_series",
    "high_water_marks": "table_name, venue, symbol, id_series",
    "missing_trades": "venue, symbol, id_series, first_trade_id",
    "trade_gaps": "venue, symbol, id_series, first_id",
}
"""Table -> its new key. A candle's ends in the series: it is looked for by time."""

_GROWING: Final = ("trades", "book_tickers")
_CANDLES: Final = {"candles_5m": 5, "candles_15m": 15, "candles_1h": 60, "candles_1d": 1440}
_TIME: Final = "timestamptz 'epoch' + ({}) * interval '1 microsecond'"


def upgrade() -> None:
    """Add the columns, change the keys, and make the tables of conflicts and the views of candles follow."""
    dialect = context.config.attributes["dialect"]
    op.execute("ALTER TABLE top_of_book ADD COLUMN id_series int NOT NULL DEFAULT 0")
    for table, key in _KEYS.items():
        op.execute(f"ALTER TABLE {table} ADD COLUMN id_series int NOT NULL DEFAULT 0")
        sharded = dialect.sharded_key if table in _GROWING else ""
        op.execute(
            f"ALTER TABLE {table} DROP CONSTRAINT {table}_pkey, "
            f"ADD CONSTRAINT {table}_pkey PRIMARY KEY ({key}) {sharded}"
        )
    for statement in _conflicts(dialect.name_type):
        op.execute(statement)
    for name, minutes in _CANDLES.items():
        op.execute(_candles(name, minutes))


def _conflicts(name: str) -> tuple[str, ...]:
    return (
        f"""
        CREATE TABLE trade_conflicts (
            venue {name} NOT NULL,
            symbol {name} NOT NULL,
            id_series int NOT NULL,
            trade_id bigint NOT NULL,
            price numeric NOT NULL,
            qty numeric NOT NULL,
            buyer_is_maker boolean NOT NULL,
            trade_time_us bigint NOT NULL,
            event_time_us bigint,
            received_time_us bigint NOT NULL,
            origin text NOT NULL,
            stored_price numeric NOT NULL,
            stored_qty numeric NOT NULL,
            stored_buyer_is_maker boolean NOT NULL,
            stored_trade_time_us bigint NOT NULL,
            messages bigint NOT NULL,
            noticed_time_us bigint NOT NULL,
            PRIMARY KEY (venue, symbol, id_series, trade_id, trade_time_us, price, qty, buyer_is_maker)
        )""",
        f"""
        CREATE TABLE quote_conflicts (
            venue {name} NOT NULL,
            symbol {name} NOT NULL,
            id_series int NOT NULL,
            update_id bigint NOT NULL,
            bid_price numeric NOT NULL,
            bid_qty numeric NOT NULL,
            ask_price numeric NOT NULL,
            ask_qty numeric NOT NULL,
            event_time_us bigint,
            received_time_us bigint NOT NULL,
            stored_bid_price numeric NOT NULL,
            stored_bid_qty numeric NOT NULL,
            stored_ask_price numeric NOT NULL,
            stored_ask_qty numeric NOT NULL,
            messages bigint NOT NULL,
            noticed_time_us bigint NOT NULL,
            PRIMARY KEY (venue, symbol, id_series, update_id, bid_price, bid_qty, ask_price, ask_qty)
        )""",
    )


def _candles(name: str, minutes: int) -> str:
    width_us = minutes * 60_000_000
    return f"""
        CREATE OR REPLACE VIEW {name} AS
        SELECT venue, symbol, {_TIME.format(f"min(open_time_us - open_time_us % {width_us})")} AS open_time,
            (array_agg(open ORDER BY id_series, first_trade_id))[1] AS open, max(high) AS high, min(low) AS low,
            (array_agg(close ORDER BY id_series DESC, last_trade_id DESC))[1] AS close,
            sum(volume) AS volume, sum(quote_volume) AS quote_volume, sum(buy_volume) AS buy_volume,
            sum(trade_count) AS trade_count,
            (array_agg(first_trade_id ORDER BY id_series, first_trade_id))[1] AS first_trade_id,
            (array_agg(last_trade_id ORDER BY id_series DESC, last_trade_id DESC))[1] AS last_trade_id
        FROM candles_1m
        GROUP BY venue, symbol, open_time_us - open_time_us % {width_us}"""  # noqa: S608 - numbers, all ours
