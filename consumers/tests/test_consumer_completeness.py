"""The audit's figures as metrics.

- They are the sums of the audit's hours, whatever was stored and whatever is absent.
- One process of a group exports them, the owner of the first partition of the trades' topic.
- They are collected while writers write, and cause no serialization failure.
- A query without a response is counted and retried.
"""

import threading
from collections import Counter
from collections.abc import Callable
from typing import Protocol

import psycopg
import pytest
from consumer_market import trade
from consumer_session import Session
from consumer_support import stored
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families
from structlog.testing import capture_logs

from marketfeed_consumers.admin import audit, completeness
from marketfeed_consumers.admin.audit import HOUR_US
from marketfeed_consumers.admin.auditor import Auditor
from marketfeed_consumers.admin.resolution import MARGIN_US, RESOLUTIONS, GapRows, resolve
from marketfeed_consumers.database import schema
from marketfeed_consumers.database.connections import connect
from marketfeed_consumers.database.tables import trade_gaps
from marketfeed_consumers.planning.plausible_times import EARLIEST_US
from marketfeed_devtools.pgproxy import Proxy
from marketfeed_devtools.waiting import until
from marketfeed_wire import Gap


class Server(Protocol):
    def new_database(self) -> str: ...


@pytest.mark.parametrize(
    ("missing", "absent", "expected"),
    [
        pytest.param([], [], (0, 0, 0, 1.0), id="nothing is missing"),
        pytest.param([(5, 9)], [], (5, 0, 1, 90 / 95), id="a range of which nothing is known is unresolved"),
        pytest.param([(5, 9)], [[(5, 9)]], (0, 5, 0, 1.0), id="what was proven absent is not lost"),
        pytest.param([(5, 9)], [[(6, 6)]], (4, 1, 2, 90 / 94), id="proof in the middle leaves two open gaps"),
        pytest.param([(5, 9)], [[(1, 6)], [(5, 5), (9, 12)]], (2, 3, 1, 90 / 92), id="proofs that overlap count once"),
    ],
)  # fmt: skip
def test_figures_of_one_symbol(
    missing: list[tuple[int, int]],
    absent: list[list[tuple[int, int]]],
    expected: tuple[int, int, int, float],
) -> None:
    ledger = GapRows(
        marks=[("v", "S", 0, 0, 100)],
        missing=[("v", "S", 0, *span, 7, 8) for span in missing],
        absent=[("v", "S", 0, spans, "proof") for spans in absent],
        rejected=[],
        reported=[],
        limits={},
        now_us=9,
    )
    (one,) = completeness.assemble(ledger, {("v", "S", 0): 90}, {("v", "S", 0): 7})
    unresolved, proven, open_gaps, ratio = expected
    assert one.missing == {"unresolved": unresolved, "absent": proven, "rejected": 0, "expired": 0}
    assert one.open_gaps == open_gaps
    assert one.completeness_ratio == pytest.approx(ratio)


spans = st.tuples(st.integers(0, 300), st.integers(0, 9)).map(lambda pair: (pair[0], pair[0] + pair[1]))


@given(
    st.lists(spans, max_size=12),
    st.lists(st.lists(spans, max_size=3), max_size=6),
    st.lists(spans, max_size=3),
    st.lists(spans.map(lambda span: (span[0] + 250, span[1] + 250)), max_size=4),
)
def test_figures_are_the_sums_of_the_audits_hours(
    missing: list[tuple[int, int]],
    absent: list[list[tuple[int, int]]],
    rejected: list[tuple[int, int]],
    reported: list[tuple[int, int]],
) -> None:
    ledger = GapRows(
        marks=[("v", "S", 0, 0, 400)],
        missing=[("v", "S", 0, *span, EARLIEST_US + span[0], EARLIEST_US + span[1]) for span in missing],
        absent=[("v", "S", 0, spans, "proof") for spans in absent],
        rejected=[("v", "S", 0, *span, EARLIEST_US + 200) for span in rejected],
        reported=[("v", "S", 0, reported, 0, 400, *[EARLIEST_US + 300] * 3, EARLIEST_US + 400)],
        limits={("v", "S", 0): EARLIEST_US + MARGIN_US + 100},
        now_us=EARLIEST_US + 1000,
    )
    (one,) = completeness.assemble(ledger, {("v", "S", 0): 90}, {("v", "S", 0): 7})
    ranges = audit.located(resolve(ledger), 0, 2**63 - 1)
    hours = audit.assemble([("v", "S", 0, EARLIEST_US // HOUR_US * HOUR_US, 1, 400, 90)], ranges, [], None)
    sums: Counter[str] = Counter()
    for hour in hours:
        for span in hour.missing:
            sums[span.resolution] += span.size
    assert one.missing == {resolution: sums[resolution] for resolution in RESOLUTIONS}
    assert (one.completeness_ratio == 1.0) == all(hour.completeness_percent == 100.0 for hour in hours)


NOW_US = EARLIEST_US + 2 * MARGIN_US


def resolved_ranges(**tables: list[tuple[object, ...]]) -> list[tuple[int, int, str]]:
    ledger = {"marks": [], "missing": [], "absent": [], "rejected": [], "reported": [], **tables}
    limits = {("v", "S", 0): EARLIEST_US + MARGIN_US + 100}
    found = resolve(GapRows(**ledger, limits=limits, now_us=NOW_US))  # type: ignore[arg-type]
    return [(one.range.first_id, one.range.last_id, one.range.resolution) for one in found]


def reported(
    *missing: tuple[int, int], stored: tuple[int, int] | None = (100, 200), young: bool = True
) -> object:
    """A reported gap; the trades at the ends of the stored span are young or expired."""
    us = NOW_US - 1 if young else EARLIEST_US
    return ("v", "S", 0, missing, *(stored or (None, None)), us, us, us, us)


@pytest.mark.parametrize(
    ("tables", "expected"),
    [
        pytest.param([reported((10, 99))], [(10, 99, "unresolved")], id="before the first stored trade"),
        pytest.param([reported((150, 160))], [], id="inside, missing_trades has it"),
        pytest.param([reported((190, 210))], [(201, 210, "unresolved")], id="after the last stored trade"),
        pytest.param(
            [reported((90, 210))], [(90, 99, "unresolved"), (201, 210, "unresolved")], id="on both sides"
        ),
        pytest.param(
            [reported((10, 50)), reported((40, 60), (90, 95))],
            [(10, 50, "unresolved"), (51, 60, "unresolved"), (90, 95, "unresolved")],
            id="two workers report the same ids",
        ),
        pytest.param([reported((1, 9), stored=None)], [(1, 9, "unresolved")], id="nothing is stored"),
        pytest.param([reported((10, 99), young=False)], [(10, 99, "expired")], id="older than is kept"),
    ],
)  # fmt: skip
def test_figures_include_reported_gaps_outside_the_stored_span(
    tables: list[tuple[object, ...]], expected: list[tuple[int, int, str]]
) -> None:
    assert resolved_ranges(marks=[("v", "S", 0, 100, 200)], reported=tables) == expected


def test_figures_count_a_reported_and_rejected_or_absent_id_once() -> None:
    assert resolved_ranges(
        marks=[("v", "S", 0, 100, 200)],
        reported=[reported((10, 20))],
        rejected=[("v", "S", 0, 12, 13, NOW_US)],
        absent=[("v", "S", 0, [(15, 15)], "proof")],
    ) == [
        (10, 11, "unresolved"),
        (12, 13, "rejected"),
        (14, 14, "unresolved"),
        (15, 15, "absent"),
        (16, 20, "unresolved"),
    ]


@pytest.mark.integration
def test_audit_and_figures_include_a_gap_before_the_first_stored_trade(
    session: Callable[..., Session], database: str
) -> None:
    """As with BACKFILL_FROM for trades that REST does not return: nothing below the first one is ever stored."""
    gap = Gap(
        venue="binance_us", symbol="BTCUSDT", first_id=3, last_id=9, state="unresolved", missing=[(3, 9)], absent=[],
        proof="", detected_time_us=trade(10).trade_time_us, updated_time_us=trade(10).trade_time_us,
    )  # fmt: skip
    mine = session()
    with psycopg.connect(database) as other:
        other.execute(trade_gaps.MERGE, trade_gaps.parameters(gap))
    connection, dialect = connect(database)
    with connection:
        now_us = trade(99).trade_time_us

        def report() -> tuple[bool, bool, int]:
            found = audit.audit(connection, dialect, audit.Scope(), now_us=now_us)
            ((one,), _) = completeness.figures(connection, now_us)
            assert sum(hour.unresolved for hour in found.hours) == one.missing["unresolved"]
            return found.any_stored, found.is_complete, one.missing["unresolved"]

        assert report() == (True, False, 7)
        mine.write(*(trade(i) for i in (8, 9, 10)))
        assert report() == (True, False, 5)
        mine.write(*(trade(i) for i in range(3, 8)))
        assert report() == (True, True, 0)


GAP = (
    "INSERT INTO trade_gaps VALUES ('binance_us', 'BTCUSDT', 4, 9, 'absent', '[]', '[[4, 5]]', 'aggTrades', 0, 0), "
    "('binance_us', 'ETHUSDT', 1, 2, 'absent', '[]', '[[1, 2]]', 'long ago', 0, 0)"
)


@pytest.mark.integration
def test_figures_are_computed_without_reading_rows(session: Callable[..., Session], database: str) -> None:
    session().write(*(trade(i) for i in (1, 2, 3, 6, 7, 10)), *(trade(i, "ETHUSDT") for i in range(40, 90)))
    with psycopg.connect(database) as other:
        other.execute(GAP)
    connection, _ = connect(database)
    with connection:
        found = {one.symbol: one for one in completeness.figures(connection, trade(99).trade_time_us)[0]}
    assert found["BTCUSDT"] == completeness.Figures(
        "binance_us",
        "BTCUSDT",
        6,
        {"absent": 2, "unresolved": 2, "rejected": 0, "expired": 0},
        1,
        trade(10).trade_time_us,
    )
    assert found["ETHUSDT"].completeness_ratio == 1.0
    assert found["ETHUSDT"].stored == 50


def taken(auditor: Auditor) -> list[completeness.Figures]:
    return list(auditor.taken.figures) if auditor.taken else []


@pytest.mark.integration
def test_figures_cause_no_serialization_failure_of_a_writer(
    session: Callable[..., Session], database: str
) -> None:
    """Audits without a pause while a consumer stores: no transaction of the consumer fails."""
    mine = session()
    with Auditor(database, 0.001, lambda: True) as auditor:
        for start in range(0, 3000, 30):
            mine.write(*(trade(i) for i in range(start, start + 25)))
        until(lambda: [one.stored for one in taken(auditor)] == [2500], "the last figures")
        assert [one.open_gaps for one in taken(auditor)] == [99]
    assert mine.writer.retries == {}
    assert auditor.failures == 0


@pytest.mark.integration
def test_figures_that_fail_are_counted_and_retried(database: str) -> None:
    with psycopg.connect(database, autocommit=True) as other:
        other.execute("ALTER TABLE high_water_marks RENAME TO away")
        with capture_logs() as lines, Auditor(database, 0.01, lambda: True) as auditor:
            until(lambda: auditor.failures > 1, "failures")
            assert auditor.taken is None
            other.execute("ALTER TABLE away RENAME TO high_water_marks")
            until(lambda: auditor.taken is not None, "figures")
    assert [line["event"] for line in lines] == ["audit metrics failing", "audit metrics taken"]


@pytest.mark.integration
def test_auditor_stop_cancels_a_running_query(postgres: Server) -> None:
    """A query without a response is cancelled."""
    database = postgres.new_database()
    schema.migrate(database, 10)
    with psycopg.connect(database) as other:
        other.execute("LOCK TABLE high_water_marks")
        with Auditor(database, 0.01, lambda: True) as auditor:
            until(lambda: waiting(other), "the figures to be waited for")
        assert auditor.failures == 0
        assert "auditor" not in {thread.name for thread in threading.enumerate()}


@pytest.mark.integration
def test_auditor_stop_does_not_wait_for_a_frozen_server(database: str, proxy: Proxy, proxied: str) -> None:
    """The cancel request, too, may get no response."""
    with psycopg.connect(database) as other:
        other.execute("LOCK TABLE high_water_marks")
        with Auditor(proxied, 0.01, lambda: True):
            until(lambda: waiting(other), "the figures to be waited for")
            proxy.freeze()


def waiting(connection: psycopg.Connection[tuple[object, ...]]) -> bool:
    query = "SELECT count(*) FROM pg_locks WHERE relation = 'high_water_marks'::regclass AND NOT granted"
    return connection.execute(query).fetchone() == (1,)


PREFIX = "marketfeed_consumer_audit_"


@pytest.mark.integration
def test_figures_are_exported_by_one_process_of_a_group(start, publish, topic, database):
    """The owner of the trades' first partition; after its end, the next owner of that partition."""
    symbols = [f"SYM{i}" for i in range(12)]
    publish(topic, *(trade(i, symbol) for i in range(50) if i != 7 for symbol in symbols))
    options = {"AUDIT_INTERVAL_SECONDS": "0.2", "KAFKA_SESSION_TIMEOUT_MS": "4000", "CONSUMER_TOPICS": topic}
    both = [start(**options), start(**options)]
    until(lambda: stored(database, "trades") == 49 * 12, "the trades", 60)
    until(lambda: all(one.status()["partitions"] for one in both), "both to own partitions", 60)

    def showing() -> list[bool]:
        return ["audit_open_gaps{" in one.get("/metrics")[1] for one in both]

    until(lambda: sorted(showing()) == [False, True], "figures from one of them")
    owner = both[showing().index(True)]
    assert (topic, 0) in {(p["topic"], p["partition"]) for p in owner.status()["partitions"]}

    def shown_by(consumer) -> dict[tuple[str, ...], float]:
        return {
            (sample.name.removeprefix(PREFIX), *sorted(sample.labels.values())): sample.value
            for family in text_string_to_metric_families(consumer.get("/metrics")[1])
            for sample in family.samples
        }

    def count() -> float:
        return sum(value for name, value in shown_by(owner).items() if name[0] == "stored_trades")

    until(lambda: count() == 49 * 12, "figures taken after the last trade")
    shown = shown_by(owner)
    for symbol in symbols:
        labels = (symbol, "binance_us")
        assert shown["open_gaps", *labels] == 1
        assert shown["missing_trades", symbol, "binance_us", "unresolved"] == 1
        assert shown["missing_trades", symbol, "absent", "binance_us"] == 0
        assert shown["stored_trades", *labels] == 49
        assert shown["completeness_ratio", *labels] == 0.98
        assert shown["newest_trade_timestamp_seconds", *labels] == trade(49).trade_time_us / 1e6
    with psycopg.connect(database) as direct:
        direct.execute(
            "INSERT INTO retention_state VALUES ('trades', 'binance_us', 'SYM0', 0, 5, 5, 7, 2, 20, 9), "
            "('trades', 'binance_us', 'SYM1', 0, 5, 5, 1, 0, 10, 30)"
        )
    until(lambda: owner.status()["retention"], "what retention has done")
    expected = {"deleted_rows": 8, "impossible_rows": 2, "unfinished_symbols": 1, "finished_time_us": 30}
    assert owner.status()["retention"] == {"trades": expected}
    text = owner.get("/metrics")[1]
    for line in (
        'retention_deleted_rows_total{table="trades"} 8.0',
        'retention_finished_timestamp_seconds{table="trades"} 3e-05',
        'retention_unfinished_symbols{table="trades"} 1.0',
        'retention_impossible_rows{symbol="SYM0",table="trades",venue="binance_us"} 2.0',
    ):
        assert f"marketfeed_consumer_{line}" in text
    other = both[1 - both.index(owner)]
    owner.kill()
    until(lambda: "audit_open_gaps{" in other.get("/metrics")[1], "the other to show them", 60)
    assert other.stop() == 0
