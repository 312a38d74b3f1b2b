"""Shared by the integration tests: waiting, reading tables, a consumer process."""

import json
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
from psycopg import sql

from marketfeed_devtools.waiting import until


def rows(url: str, query: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(url) as connection:
        return connection.execute(query).fetchall()


def stored(url: str, table: str) -> int:
    with psycopg.connect(url) as connection:
        row = connection.execute(sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(table))).fetchone()
    assert row is not None
    return int(row[0])


class Consumer:
    """A running `marketfeed-consumer`."""

    def __init__(
        self,
        environment: dict[str, str],
        folder: Path,
        program: Sequence[str] = ("-m", "marketfeed_consumers"),
    ) -> None:
        self.log = folder / f"{uuid4().hex}.log"
        self._port_file = folder / f"{uuid4().hex}.port"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, *program],
                env={**os.environ, **environment, "METRICS_PORT_FILE": str(self._port_file)},
                stderr=log,
                stdout=log,
            )
        until(lambda: self._port_file.exists() or self.process.poll() is not None, "the metrics port")

    def get(self, path: str) -> tuple[int, str]:
        url = f"http://127.0.0.1:{self._port_file.read_text().strip()}{path}"
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def status(self) -> dict[str, Any]:
        status: dict[str, Any] = json.loads(self.get("/status")[1])
        return status

    def kill(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(30)


def everything(url: str) -> dict[str, list[tuple[Any, ...]]]:
    """Return all stored rows, without owners and recording times."""
    return {
        "trades": rows(url, "SELECT * FROM trades ORDER BY venue, symbol, id_series, trade_id"),
        "book_tickers": rows(url, "SELECT * FROM book_tickers ORDER BY venue, symbol, id_series, update_id"),
        "candles_1m": rows(url, "SELECT * FROM candles_1m ORDER BY venue, symbol, open_time_us"),
        "top_of_book": rows(url, "SELECT * FROM top_of_book ORDER BY venue, symbol"),
        "marks": rows(
            url,
            "SELECT table_name, venue, symbol, first_id, last_id, first_time_us, last_time_us, row_count "
            "FROM high_water_marks ORDER BY 1, 2, 3",
        ),
        "missing": rows(
            url, "SELECT venue, symbol, first_trade_id, last_trade_id FROM missing_trades ORDER BY 1, 2, 3"
        ),
        "offsets": rows(url, 'SELECT topic, "partition", next_offset FROM consumer_offsets ORDER BY 1, 2'),
        "dead_letters": rows(url, "SELECT value, reason FROM dead_letters ORDER BY 1"),
    }


DERIVED_CANDLES = """
    SELECT venue, symbol, trade_time_us - trade_time_us % 60000000 AS open_time_us,
        (array_agg(price ORDER BY trade_id))[1] AS open, max(price) AS high, min(price) AS low,
        (array_agg(price ORDER BY trade_id DESC))[1] AS close, sum(qty) AS volume, sum(price * qty) AS quote_volume,
        coalesce(sum(qty) FILTER (WHERE NOT buyer_is_maker), 0) AS buy_volume, count(*) AS trade_count,
        min(trade_id) AS first_trade_id, max(trade_id) AS last_trade_id, id_series
    FROM trades GROUP BY venue, symbol, 3, id_series
"""
"""Candles as the SQL aggregate of the rows."""

CANDLES_DIFFER = f"""
WITH derived AS ({DERIVED_CANDLES})
(TABLE derived EXCEPT ALL TABLE candles_1m) UNION ALL (TABLE candles_1m EXCEPT ALL TABLE derived)
"""
"""Candles that differ from the SQL aggregate of the rows; none expected."""

MARKS_DIFFER = """
WITH kept AS (
    SELECT venue, symbol, id_series, min(trade_id) AS first_id, max(trade_id) AS last_id, count(*) AS rows
    FROM trades GROUP BY 1, 2, 3
), gaps AS (
    SELECT venue, symbol, id_series, sum(last_trade_id - first_trade_id + 1) AS ids FROM missing_trades GROUP BY 1, 2, 3
)
SELECT m.*, k.*, g.ids FROM (
    SELECT m.*, coalesce(r.deleted_rows, 0) AS deleted FROM high_water_marks AS m
    LEFT JOIN retention_state AS r USING (table_name, venue, symbol, id_series) WHERE m.table_name = 'trades'
) AS m
FULL JOIN kept AS k USING (venue, symbol, id_series) LEFT JOIN gaps AS g USING (venue, symbol, id_series)
WHERE m.row_count - m.deleted IS DISTINCT FROM k.rows
    OR m.last_id::numeric - m.first_id + 1 IS DISTINCT FROM m.row_count + coalesce(g.ids, 0)
    OR k.first_id < m.first_id OR k.last_id > m.last_id
    OR (m.deleted = 0 AND (k.first_id, k.last_id) IS DISTINCT FROM (m.first_id, m.last_id))
"""
"""High-water marks with a wrong row count or id range, and rows without a mark."""

MISSING_DIFFER = """
WITH derived AS (
    SELECT venue, symbol, id_series, trade_id + 1 AS first_id, next_id - 1 AS last_id FROM (
        SELECT venue, symbol, id_series, trade_id,
            lead(trade_id) OVER (PARTITION BY venue, symbol, id_series ORDER BY trade_id) AS next_id
        FROM trades
    ) AS neighbours WHERE next_id - trade_id > 1
), held AS (SELECT venue, symbol, id_series, first_trade_id AS first_id, last_trade_id AS last_id FROM missing_trades),
differing AS (
    (TABLE derived EXCEPT ALL TABLE held) UNION ALL (TABLE held EXCEPT ALL TABLE derived)
)
SELECT d.* FROM differing AS d LEFT JOIN retention_state AS r
    ON r.table_name = 'trades' AND (r.venue, r.symbol, r.id_series) = (d.venue, d.symbol, d.id_series)
WHERE coalesce(r.deleted_rows, 0) = 0
UNION ALL
SELECT h.* FROM held AS h JOIN trades AS t USING (venue, symbol, id_series)
WHERE t.trade_id BETWEEN h.first_id AND h.last_id
"""
"""Missing ranges that differ from the ids without rows, where none were deleted; and ranges that contain a row."""

TOPS_DIFFER = """
WITH derived AS (
    SELECT DISTINCT ON (venue, symbol) * FROM book_tickers ORDER BY venue, symbol, id_series DESC, update_id DESC
)
(TABLE derived EXCEPT ALL TABLE top_of_book) UNION ALL (TABLE top_of_book EXCEPT ALL TABLE derived)
"""


def differences(url: str) -> dict[str, list[tuple[Any, ...]]]:
    """Return the derived rows that are inconsistent with the rows; {} expected."""
    queries = {
        "candles": CANDLES_DIFFER, "marks": MARKS_DIFFER, "missing": MISSING_DIFFER, "tops": TOPS_DIFFER
    }  # fmt: skip
    found = {name: rows(url, query) for name, query in queries.items()}
    return {name: own for name, own in found.items() if own}
