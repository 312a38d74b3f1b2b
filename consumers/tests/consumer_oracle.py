"""The definition of what must be stored and reported, in SQL over a log of all published messages.

Tables of the oracle's own, filled by who publishes; `trades`, `book_tickers`, `candles_1m` are read as a reader does.

- market: every trade that the venue has. published: every message, with the step in which it was and the time then;
  kind t a trade, x a trade that cannot be read, q a quote. absent: ids that the venue proved not to exist.
- runs: retention, its limit, from which to which step it was at work, and whether it came to its end.
"""

from typing import Final

SCHEMA: Final = """
CREATE SCHEMA IF NOT EXISTS oracle;
CREATE TABLE IF NOT EXISTS oracle.market (symbol text COLLATE "C", id bigint, time_us bigint);
CREATE TABLE IF NOT EXISTS oracle.published (
    seq int, symbol text COLLATE "C", kind text, id bigint, time_us bigint, now_us bigint
);
CREATE TABLE IF NOT EXISTS oracle.absent (symbol text COLLATE "C", id bigint);
CREATE TABLE IF NOT EXISTS oracle.runs (
    table_name text, before_us bigint, begin_seq int, end_seq int, is_complete boolean
);

-- Whether a time can be: from 2009 on, and not more than a day ahead.
CREATE OR REPLACE FUNCTION oracle.can_be(time_us bigint, now_us bigint) RETURNS boolean IMMUTABLE
    RETURN time_us >= 1230768000000000 AND time_us <= now_us + 86400000000;

-- Each trade that was published, as it was first, and the highest limit of the runs that were at work since.
CREATE OR REPLACE VIEW oracle.trades AS
SELECT symbol, id, min(time_us) AS time_us, min(seq) AS seq, coalesce((
    SELECT max(before_us) FROM oracle.runs AS r
    WHERE r.table_name = 'trades' AND coalesce(r.end_seq, 1000000) >= min(p.seq)
), 0) AS limit_us
FROM oracle.published AS p WHERE kind = 't' GROUP BY symbol, id;

-- Ids between published ones that were not published, with the times on both sides, and rejected ones anywhere.
CREATE OR REPLACE VIEW oracle.missing AS
SELECT symbol, i AS id, time_us AS after_us, next_us AS before_us, false AS is_outside FROM (
    SELECT symbol, id, time_us, lead(id) OVER own AS next_id, lead(time_us) OVER own AS next_us
    FROM oracle.trades WINDOW own AS (PARTITION BY symbol ORDER BY id)
) AS t, generate_series(id + 1, next_id - 1) AS i
UNION ALL
SELECT symbol, id, NULL, NULL, true FROM (
    SELECT DISTINCT symbol, id FROM oracle.published WHERE kind = 'x'
) AS x
WHERE id NOT BETWEEN
    coalesce((SELECT min(id) FROM oracle.trades AS t WHERE t.symbol = x.symbol), id + 1)
    AND coalesce((SELECT max(id) FROM oracle.trades AS t WHERE t.symbol = x.symbol), id);

CREATE OR REPLACE VIEW oracle.rejected AS
SELECT symbol, id, max(now_us) AS now_us FROM oracle.published WHERE kind = 'x' GROUP BY symbol, id;

-- The limits that may be in force of a symbol: that of the newest whole run since it was there, and of runs begun
-- since, which may or may not have come to it.
CREATE OR REPLACE VIEW oracle.limits AS
SELECT symbol, coalesce(max(before_us), 0) AS highest_us,
    CASE WHEN bool_or(is_complete) THEN min(before_us) ELSE 0 END AS lowest_us
FROM (SELECT symbol, min(seq) AS first_seq FROM oracle.published WHERE kind = 't' GROUP BY symbol) AS s
LEFT JOIN oracle.runs AS r ON r.table_name = 'trades' AND r.begin_seq >= s.first_seq AND r.begin_seq >= coalesce((
    SELECT max(begin_seq) FROM oracle.runs AS w WHERE w.table_name = 'trades' AND w.is_complete
), 0)
GROUP BY symbol;

CREATE OR REPLACE VIEW oracle.highest_limit AS
SELECT coalesce(max(before_us), 0) AS us FROM oracle.runs WHERE table_name = 'trades';
"""

_OLD: Final = """(
    oracle.can_be(m.after_us, %(now)s) AND oracle.can_be(m.before_us, %(now)s)
    AND greatest(m.after_us, m.before_us) < (
        SELECT limit_us FROM oracle.limits AS l WHERE l.symbol = m.symbol
    ) - 3600000000
)"""
"""Both adjacent trades are older than the limit by an hour: then the ids between them have expired."""

_REJECTED: Final = "EXISTS (SELECT 1 FROM oracle.rejected AS r WHERE r.symbol = m.symbol AND r.id = m.id)"
_ABSENT: Final = "EXISTS (SELECT 1 FROM oracle.absent AS a WHERE a.symbol = m.symbol AND a.id = m.id)"
_OLD_WHEN_REJECTED: Final = """EXISTS (
    SELECT 1 FROM oracle.rejected AS r
    WHERE r.symbol = m.symbol AND r.id = m.id AND r.now_us < (SELECT us FROM oracle.highest_limit)
)"""
"""Rejected before the limit, so older than it; its dead letter may have been deleted."""

_MISSING: Final = f"""
SELECT m.symbol, m.id FROM oracle.missing AS m WHERE CASE
    WHEN m.is_outside THEN %(old)s OR NOT {_OLD_WHEN_REJECTED}
    WHEN {_OLD} THEN false
    WHEN {_ABSENT} THEN {_REJECTED} AND (%(old)s OR NOT {_OLD_WHEN_REJECTED})
    ELSE true END
"""  # noqa: S608 - constants

NAMED: Final = {
    "must": _MISSING.replace("%(old)s", "false").replace("limit_us", "highest_us"),
    "may": _MISSING.replace("%(old)s", "true").replace("limit_us", "lowest_us"),
    "since": """
        SELECT m.symbol, m.id FROM oracle.missing AS m
        WHERE NOT m.is_outside AND (NOT oracle.can_be(m.before_us, %(now)s) OR m.before_us >= %(since)s
            OR (oracle.can_be(m.after_us, %(now)s) AND m.after_us >= %(since)s))
    """,
}
"""Ids that the audit must report, those that it may, and those that it must also report from a given time."""

CHECKS: Final = {
    # A published trade that is not older than any later limit, or has an impossible time, is in the table.
    "lost": """
        SELECT p.symbol, p.id, p.time_us, p.limit_us FROM oracle.trades AS p
        WHERE (p.time_us >= p.limit_us OR p.time_us < 1230768000000000)
            AND NOT EXISTS (
                SELECT 1 FROM trades AS t
                WHERE t.symbol = p.symbol AND t.trade_id = p.id AND t.trade_time_us = p.time_us
            )
    """,
    # Every row of the table was published with the same content.
    "invented": """
        SELECT t.symbol, t.trade_id FROM trades AS t
        WHERE NOT EXISTS (
            SELECT 1 FROM oracle.trades AS p
            WHERE p.symbol = t.symbol AND p.id = t.trade_id AND p.time_us = t.trade_time_us
        )
    """,
    # After a complete run no old rows remain, except for the newest row of a symbol.
    "left": """
        SELECT t.symbol, t.trade_id, t.trade_time_us FROM trades AS t
        WHERE t.trade_time_us >= 1230768000000000 AND t.trade_time_us < (
                SELECT before_us FROM oracle.runs WHERE table_name = 'trades' ORDER BY begin_seq DESC LIMIT 1
            )
            AND t.trade_id < (SELECT max(id) FROM oracle.trades AS p WHERE p.symbol = t.symbol)
    """,
    # Each trade counts once in its minute's candle, whatever was deleted, reread or rebuilt since.
    "candles": """
        WITH expected AS (
            SELECT symbol, time_us - time_us %% 60000000 AS open_us, count(*), min(id) AS first, max(id) AS last
            FROM oracle.trades GROUP BY 1, 2
        ), held AS (
            SELECT symbol, open_time_us AS open_us, trade_count AS count, first_trade_id AS first,
                last_trade_id AS last
            FROM candles_1m
        ), differing AS (
            (TABLE expected EXCEPT ALL TABLE held) UNION ALL (TABLE held EXCEPT ALL TABLE expected)
        )
        SELECT * FROM differing WHERE open_us < 1230768000000000 OR open_us >= coalesce(
            (SELECT max(before_us) FROM oracle.runs WHERE table_name = 'candles_1m'), 0)
    """,
    # A late quote that was older than the limit of its time need not be stored.
    "quotes lost": """
        SELECT p.symbol, p.id, p.time_us FROM oracle.published AS p
        WHERE kind = 'q' AND (p.time_us < 1230768000000000 OR p.time_us >= coalesce((
                SELECT max(before_us) FROM oracle.runs AS r
                WHERE r.table_name = 'book_tickers'
                    AND (coalesce(r.end_seq, 1000000) >= p.seq OR r.begin_seq >= coalesce((
                    SELECT max(begin_seq) FROM oracle.runs AS w
                    WHERE w.table_name = 'book_tickers' AND w.is_complete AND w.end_seq < p.seq
                ), 0))
            ), 0))
            AND NOT EXISTS (SELECT 1 FROM book_tickers AS b WHERE b.symbol = p.symbol AND b.update_id = p.id)
    """,
    "quotes invented": """
        SELECT b.symbol, b.update_id FROM book_tickers AS b WHERE NOT EXISTS (
            SELECT 1 FROM oracle.published AS p
            WHERE p.kind = 'q' AND p.symbol = b.symbol AND p.id = b.update_id AND p.time_us = b.received_time_us
        )
    """,
    # Trades of the venue, younger than the limit and inside the published ids, are stored or reported; except those
    # between two old trades.
    "not complete": """
        SELECT v.symbol, v.id, v.time_us FROM oracle.market AS v
        JOIN oracle.missing AS m ON m.symbol = v.symbol AND m.id = v.id AND NOT m.is_outside
        WHERE v.time_us >= (SELECT us FROM oracle.highest_limit) AND NOT old
            AND NOT EXISTS (SELECT 1 FROM trades AS t WHERE t.symbol = v.symbol AND t.trade_id = v.id)
            AND NOT EXISTS (
                SELECT 1 FROM jsonb_array_elements(%(named)s::jsonb) AS n
                WHERE n ->> 0 = v.symbol AND (n ->> 1)::bigint = v.id
            )
    """.replace("NOT old", f"NOT {_OLD}").replace("limit_us", "highest_us"),
}
