"""The tables of trades and quotes, the tables derived from them, and the stored ranges."""

from alembic import context, op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Create all tables."""
    dialect = context.config.attributes["dialect"]
    name, hot, sharded = dialect.name_type, dialect.hot_row_storage, dialect.sharded_key
    for statement in (
        f"""
        CREATE TABLE trades (
            venue {name} NOT NULL,
            symbol {name} NOT NULL,
            trade_id bigint NOT NULL,
            price numeric NOT NULL,
            qty numeric NOT NULL,
            buyer_is_maker boolean NOT NULL,
            trade_time_us bigint NOT NULL,
            event_time_us bigint,
            received_time_us bigint NOT NULL,
            origin text NOT NULL,
            PRIMARY KEY (venue, symbol, trade_id) {sharded}
        )""",
        f"""
        CREATE TABLE book_tickers (
            venue {name} NOT NULL,
            symbol {name} NOT NULL,
            update_id bigint NOT NULL,
            bid_price numeric NOT NULL,
            bid_qty numeric NOT NULL,
            ask_price numeric NOT NULL,
            ask_qty numeric NOT NULL,
            event_time_us bigint,
            received_time_us bigint NOT NULL,
            PRIMARY KEY (venue, symbol, update_id) {sharded}
        )""",
        f"""
        CREATE TABLE candles_1m (
            venue {name} NOT NULL,
            symbol {name} NOT NULL,
            open_time_us bigint NOT NULL,
            open numeric NOT NULL,
            high numeric NOT NULL,
            low numeric NOT NULL,
            close numeric NOT NULL,
            volume numeric NOT NULL,
            quote_volume numeric NOT NULL,
            buy_volume numeric NOT NULL,
            trade_count bigint NOT NULL,
            first_trade_id bigint NOT NULL,
            last_trade_id bigint NOT NULL,
            PRIMARY KEY (venue, symbol, open_time_us)
        ) {hot}""",
        f"""
        CREATE TABLE top_of_book (
            venue {name} NOT NULL,
            symbol {name} NOT NULL,
            update_id bigint NOT NULL,
            bid_price numeric NOT NULL,
            bid_qty numeric NOT NULL,
            ask_price numeric NOT NULL,
            ask_qty numeric NOT NULL,
            event_time_us bigint,
            received_time_us bigint NOT NULL,
            PRIMARY KEY (venue, symbol)
        ) {hot}""",
        f"""
        CREATE TABLE high_water_marks (
            table_name {name} NOT NULL,
            venue {name} NOT NULL,
            symbol {name} NOT NULL,
            version bigint NOT NULL,
            first_id bigint NOT NULL,
            last_id bigint NOT NULL,
            first_time_us bigint NOT NULL,
            last_time_us bigint NOT NULL,
            row_count bigint NOT NULL,
            expired_below_id bigint NOT NULL DEFAULT 0,
            PRIMARY KEY (table_name, venue, symbol)
        ) {hot}""",
        f"""
        CREATE TABLE missing_trades (
            venue {name} NOT NULL,
            symbol {name} NOT NULL,
            first_trade_id bigint NOT NULL,
            last_trade_id bigint NOT NULL CHECK (last_trade_id >= first_trade_id),
            after_time_us bigint NOT NULL,
            before_time_us bigint NOT NULL,
            noticed_time_us bigint NOT NULL,
            PRIMARY KEY (venue, symbol, first_trade_id)
        )""",
        f"""
        CREATE TABLE trade_gaps (
            venue {name} NOT NULL,
            symbol {name} NOT NULL,
            first_id bigint NOT NULL,
            last_id bigint NOT NULL,
            state text NOT NULL,
            missing jsonb NOT NULL,
            absent jsonb NOT NULL,
            proof text NOT NULL,
            detected_time_us bigint NOT NULL,
            updated_time_us bigint NOT NULL,
            PRIMARY KEY (venue, symbol, first_id)
        )""",
        """
        CREATE TABLE dead_letters (
            topic text NOT NULL,
            topic_id text NOT NULL,
            "partition" int NOT NULL,
            kafka_offset bigint NOT NULL,
            message_key bytea,
            value bytea,
            reason text NOT NULL,
            stored_time_us bigint NOT NULL,
            PRIMARY KEY (topic, topic_id, "partition", kafka_offset)
        )""",
        f"""
        CREATE TABLE consumer_offsets (
            consumer_group text NOT NULL,
            topic text NOT NULL,
            "partition" int NOT NULL,
            topic_id text NOT NULL,
            next_offset bigint NOT NULL,
            previous_offset bigint NOT NULL DEFAULT 0,
            epoch bigint NOT NULL,
            owner text NOT NULL,
            updated_time_us bigint NOT NULL,
            PRIMARY KEY (consumer_group, topic, "partition")
        ) {hot}""",
    ):
        op.execute(statement)
