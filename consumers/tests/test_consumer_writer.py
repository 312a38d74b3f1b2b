"""Whatever fault a transaction has, its rows and offsets are stored exactly once or not at all."""

import os
import socket
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, LiteralString, TypeVar

import psycopg
import pytest
from consumer_market import quote, trade
from consumer_session import Session
from consumer_support import differences, everything, rows, stored
from structlog.testing import capture_logs

from marketfeed_consumers.database import schema
from marketfeed_consumers.database.connections import connect
from marketfeed_consumers.errors import Abandoned, DataRejected, Fenced, StaleRanges
from marketfeed_consumers.kafka.leases import AssignedPartition, refusal
from marketfeed_consumers.storage import writer
from marketfeed_consumers.storage.transaction import Owner
from marketfeed_devtools.pgproxy import Fault, Proxy
from marketfeed_devtools.waiting import until

pytestmark = pytest.mark.integration
T = TypeVar("T")


MIXED = [
    *(trade(i) for i in range(10)),
    trade(12),
    *(quote(i * 3) for i in range(8)),
    trade(4),
    quote(1),
    b"junk",
]


def test_transaction_of_a_batch_is_atomic(session: Callable[..., Session], database: str) -> None:
    result = session().write(*MIXED)
    assert result.written.inserted == {"trades": 11, "book_tickers": 9}
    assert result.written.duplicates == {"trades": 1, "book_tickers": 0}
    held = everything(database)
    assert rows(database, "SELECT trades::text FROM trades WHERE trade_id = 1") == [
        (
            "(binance_us,BTCUSDT,1,60007.01000000,0.00000002,f,1723161600500000,1723161600500100,1723161600500500,stream,0)",
        )
    ]
    assert held["missing"] == [("binance_us", "BTCUSDT", 10, 11)]
    assert held["top_of_book"][0][2] == 21
    assert held["candles_1m"][0][10:] == (11, 0, 12, 0)
    assert held["offsets"] == [("book", 0, 9), ("trades", 0, 13)]
    assert rows(database, "SELECT value, reason <> '' FROM dead_letters") == [(b"junk", True)]


def test_dead_letters_keep_another_record_that_has_the_same_offset_after_a_truncation(
    session: Callable[..., Session], database: str
) -> None:
    """Regression: the second record was dropped, as the key was the offset only."""
    for group, value in (("one", b"junk"), ("two", b"other junk"), ("three", b"junk"), ("four", b"")):
        mine = session(group=group)
        mine.write(value)
    found = rows(database, "SELECT kafka_offset, value FROM dead_letters ORDER BY value")
    assert found == [(0, b""), (0, b"junk"), (0, b"other junk")]


@pytest.mark.parametrize(
    ("statement", "fault", "sqlstate"),
    [
        pytest.param("COMMIT", Fault.REFUSED, "40001", id="a serialization failure at COMMIT"),
        pytest.param(
            "INSERT INTO consumer_offsets", Fault.REFUSED, "40001", id="a serialization failure on the way"
        ),
        pytest.param("COMMIT", Fault.REFUSED, "40003", id="an unknown result that was not committed"),
        pytest.param("COMMIT", Fault.DONE_BUT_ERROR, "40003", id="an unknown result that was committed"),
        pytest.param("COMMIT", Fault.CUT_BEFORE, "", id="a connection lost before COMMIT"),
        pytest.param("COMMIT", Fault.CUT_AFTER, "", id="a connection lost between COMMIT and its answer"),
        pytest.param("COPY trades", Fault.CUT_BEFORE, "", id="a connection lost before COPY"),
        pytest.param("COPY trades", Fault.REFUSED, "53100", id="a full disk"),
        pytest.param("COMMIT", Fault.REFUSED, "57P01", id="a server that is shut down"),
        pytest.param("COMMIT", Fault.REFUSED, "XX000", id="an error inside the server"),
    ],
)
@pytest.mark.parametrize("times", [1, 3])
def test_fault_does_not_change_the_stored_rows(
    session: Callable[..., Session], postgres: Any, proxy: Proxy, proxied: str, database: str,
    statement: str, fault: Fault, sqlstate: str, times: int,
) -> None:  # fmt: skip
    calm = postgres.new_database()
    schema.migrate(calm, 10)
    session(calm).write(*MIXED)
    tried = session(proxied)
    for _ in range(times):
        proxy.plan(statement, fault, sqlstate)
    result = tried.write(*MIXED)
    committed_at_first = fault in (Fault.DONE_BUT_ERROR, Fault.CUT_AFTER)
    assert proxy.pending == (times - 1 if committed_at_first else 0)
    assert result.written.inserted == {"trades": 11, "book_tickers": 9}
    assert tried.writer.retries[sqlstate] >= 1
    assert tried.writer.pause_reason == ""
    proxy.forget()
    tried.write(trade(13), quote(50))
    session(calm).write(trade(13), quote(50))
    assert everything(database) == everything(calm)
    assert differences(database) == {}


def test_writes_paused_has_the_reason(session: Callable[..., Session], proxy: Proxy, proxied: str) -> None:
    tried = session(proxied)
    for _ in range(40):
        proxy.plan("COPY trades", Fault.REFUSED, "53100")
    written = tried.writer.submit_write(tried.planned(tried.batch([trade(1)])), tried.owner)
    until(lambda: "53100" in tried.writer.pause_reason, "the reason")
    assert not written.done()
    tried.writer.give_up()
    with pytest.raises(Abandoned):
        written.result(20)


def test_fencing_of_a_replaced_consumer(session: Callable[..., Session], database: str) -> None:
    old = session(name="old")
    old.write(trade(1))
    new = session(name="new")
    before = everything(database)
    with pytest.raises(Fenced, match=r"epoch 2 of new, not at 1 under our epoch 1"):
        old.write(trade(2))
    assert everything(database) == before
    new.write(trade(2))
    assert stored(database, "trades") == 2


def test_stale_ranges_are_rejected_and_planned_again(session: Callable[..., Session], database: str) -> None:
    mine = session()
    mine.write(trade(1))
    stale = mine.planned(mine.batch([trade(2)]))
    with psycopg.connect(database) as other:
        other.execute("UPDATE high_water_marks SET version = version + 1")
    with pytest.raises(StaleRanges) as caught:
        mine.writer.submit_write(stale, mine.owner).result(20)
    assert not caught.value.verify_rows
    with pytest.raises(Abandoned):
        mine.writer.submit_write(stale, mine.owner).result(20)
    mine.store_in_quarantine(caught.value, trade(2))
    assert stored(database, "trades") == 2


def test_verify_rows_skips_rows_of_another_writer(session: Callable[..., Session], database: str) -> None:
    mine = session()
    mine.write(trade(1), quote(1))
    with psycopg.connect(database) as other:
        other.execute(
            "INSERT INTO trades SELECT venue, symbol, 3, 1, 1, true, 0, NULL, 0, 'stream' FROM trades"
        )
        other.execute(
            "INSERT INTO book_tickers SELECT venue, symbol, 3, 1, 1, 1, 1, NULL, 0 FROM book_tickers"
        )
    fresh = [trade(2), trade(3), trade(4), quote(2), quote(3), quote(4)]
    with pytest.raises(StaleRanges) as caught:
        mine.write(*fresh)
    assert caught.value.verify_rows
    _, result = mine.store_in_quarantine(caught.value, *fresh)
    assert result.written.inserted == {"trades": 2, "book_tickers": 2}
    assert result.written.duplicates == {"trades": 0, "book_tickers": 0}
    assert [received for received, _ in result.written.conflicts] == [trade(3), quote(3)]
    assert rows(database, "SELECT sum(trade_count) FROM candles_1m") == [(3,)]
    assert rows(database, "SELECT count(*) FROM missing_trades") == [(0,)]
    mine.write(trade(5))
    assert stored(database, "trades") == 5


def test_poison_message_becomes_a_dead_letter_and_the_rest_is_stored(
    session: Callable[..., Session], database: str
) -> None:
    with psycopg.connect(database) as owner:
        owner.execute("ALTER TABLE trades ADD CONSTRAINT sane CHECK (qty < 1000)")
    mine = session()
    fresh = [trade(i, qty="2000" if i in (7, 30) else "1") for i in range(40)]
    with pytest.raises(DataRejected) as caught:
        mine.write(*fresh)
    made, result = mine.store_in_quarantine(caught.value, *fresh)
    assert result.written.inserted["trades"] == 38
    assert [letter.kafka_offset for letter in made.dead_letters] == [7, 30]
    assert rows(
        database, "SELECT kafka_offset FROM dead_letters WHERE reason LIKE '%sane%23514%' ORDER BY 1"
    ) == [
        (7,),
        (30,),
    ]
    assert rows(database, "SELECT first_trade_id FROM missing_trades ORDER BY 1") == [(7,), (30,)]


def test_poison_message_of_a_trigger_becomes_a_dead_letter(
    session: Callable[..., Session], database: str
) -> None:
    """Regression: it stopped the partition: a trigger's RAISE counted as a server failure."""
    with psycopg.connect(database) as owner:
        owner.execute(
            "CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS "
            "$$ BEGIN IF new.trade_id = 7 THEN RAISE EXCEPTION 'not this one'; END IF; RETURN new; END $$"
        )
        owner.execute("CREATE TRIGGER no BEFORE INSERT ON trades FOR EACH ROW EXECUTE FUNCTION no()")
    mine = session()
    fresh = [trade(i) for i in range(5, 10)]
    with pytest.raises(DataRejected) as caught:
        mine.write(*fresh)
    mine.store_in_quarantine(caught.value, *fresh)
    assert rows(database, "SELECT kafka_offset, reason FROM dead_letters") == [
        (2, "not this one (SQLSTATE P0001)")
    ]
    assert stored(database, "trades") == 4


def test_poison_message_of_a_deferred_constraint_becomes_a_dead_letter(
    session: Callable[..., Session], database: str
) -> None:
    """Regression: it was retried without end and backoff, because no probe found it."""
    if "host=" not in database:
        pytest.skip("CockroachDB defers no constraint")
    with psycopg.connect(database) as owner:
        owner.execute('CREATE TABLE listed (symbol text COLLATE "C" PRIMARY KEY)')
        owner.execute("INSERT INTO listed VALUES ('BTCUSDT')")
        owner.execute(
            "ALTER TABLE trades ADD FOREIGN KEY (symbol) REFERENCES listed DEFERRABLE INITIALLY DEFERRED"
        )
    mine = session()
    fresh = [trade(1), trade(1, "DOGE"), trade(2)]
    with pytest.raises(DataRejected) as caught:
        mine.write(*fresh)
    made, _ = mine.store_in_quarantine(caught.value, *fresh)
    assert [letter.kafka_offset for letter in made.dead_letters] == [1]
    assert stored(database, "trades") == 2


@pytest.mark.parametrize("concurrent", ["retention", "another consumer"])
def test_poison_search_continues_after_concurrent_changes(
    session: Callable[..., Session], database: str, concurrent: str
) -> None:
    """Regression: both ended the process by an unexpected error."""
    with psycopg.connect(database) as owner:
        owner.execute("ALTER TABLE trades ADD CONSTRAINT sane CHECK (qty < 1000)")
    mine = session()
    mine.write(trade(1))
    fresh = [trade(i, qty="2000" if i == 7 else "1") for i in range(2, 10)]
    with pytest.raises(DataRejected) as caught:
        mine.write(*fresh)
    answers: list[object] = []

    def wait(future: "Future[T]") -> T:
        answers.append(future.exception(30))
        # The third: after the batch was retried and the stored ranges were loaded for the first probe.
        if len(answers) == 3 and concurrent == "retention":
            with psycopg.connect(database) as other:
                other.execute("UPDATE high_water_marks SET version = version + 1")
        elif len(answers) == 3:
            session(name="another")
        return future.result()

    if concurrent == "retention":
        made, _ = mine.store_in_quarantine(caught.value, *fresh, wait=wait)
        assert any(isinstance(answer, StaleRanges) for answer in answers)
        assert [letter.kafka_offset for letter in made.dead_letters] == [6]
        assert stored(database, "trades") == 8
    else:
        with pytest.raises(Fenced, match="epoch 2 of another"):
            mine.store_in_quarantine(caught.value, *fresh, wait=wait)


def test_poison_message_of_a_user_defined_unique_index_becomes_a_dead_letter(
    session: Callable[..., Session], database: str
) -> None:
    with psycopg.connect(database) as owner:
        owner.execute("CREATE UNIQUE INDEX ON trades (qty)")
    mine = session()
    fresh = [trade(1, qty="1"), trade(2, qty="2"), trade(3, qty="1")]
    with pytest.raises(StaleRanges) as caught:
        mine.write(*fresh)
    made, _ = mine.store_in_quarantine(caught.value, *fresh)
    assert [letter.kafka_offset for letter in made.dead_letters] == [2]
    assert stored(database, "trades") == 2


def test_hanging_statement_is_cut_at_the_deadline(session: Callable[..., Session], database: str) -> None:
    mine = session()
    with psycopg.connect(database) as other:
        other.execute("LOCK TABLE trades IN ACCESS EXCLUSIVE MODE")
        written = mine.writer.submit_write(mine.planned(mine.batch([trade(1)])), mine.owner)
        mine.writer.finish([written], 0.2)
        with pytest.raises(Abandoned):
            written.result(0)
        other.rollback()
    until(lambda: everything(database)["offsets"] == [("book", 0, 0), ("trades", 0, 0)], "the rollback")
    mine.writer.resume()
    mine.write(trade(1))
    assert stored(database, "trades") == 1


def test_writes_paused_is_logged_without_a_response(
    session: Callable[..., Session], database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Regression: the status was ready while the database was hanging."""
    monkeypatch.setattr(writer, "_SILENT_SECONDS", 0.2)
    mine = session()
    assert mine.writer.why_paused() == ""

    def paused() -> bool:
        mine.writer.look()
        return "has not responded for" in mine.writer.why_paused()

    with capture_logs() as lines, psycopg.connect(database) as other:
        other.execute("LOCK TABLE trades")
        written = mine.writer.submit_write(mine.planned(mine.batch([trade(1)])), mine.owner)
        until(paused, "a word")
        assert paused()
        other.rollback()
        written.result(20)
    assert mine.writer.why_paused() == ""
    assert [line["event"] for line in lines] == ["writes paused", "writes resumed"]


def test_hanging_statement_does_not_delay_closing(database: str) -> None:
    mine = Session(database)
    with psycopg.connect(database) as other:
        other.execute("LOCK TABLE high_water_marks")
        loading = mine.writer.submit_load([("trades", "v", "S", 0)])
        mine.writer.close()
        assert isinstance(loading.exception(0), Abandoned)
        other.rollback()


def test_keepalives_detect_a_lost_server_unless_the_url_overrides_them(proxied: str) -> None:
    for url, expected in (
        (proxied, (1, 30_000)),
        (f"{proxied}&tcp_user_timeout=7000", (1, 7_000)),
    ):
        connection, _ = connect(url)
        with connection, socket.socket(fileno=os.dup(connection.fileno())) as wire:
            alive = wire.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            assert (alive, wire.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)) == expected


@pytest.mark.parametrize("encoding", ["UTF8", "SQL_ASCII", "LATIN1"])
def test_encoding_of_the_database_does_not_change_names(postgres: Any, encoding: str) -> None:
    """Regression: in SQL_ASCII nothing could be stored, in LATIN1 rows had another symbol than their mark."""
    url = postgres.new_database(f"ENCODING '{encoding}' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'")
    schema.migrate(url, 10)
    mine = Session(url)
    try:
        mine.acquire_leases()
        for turn in range(2):
            mine.write(trade(turn), trade(turn, "CAFÉ"), quote(turn, "CAFÉ"))
    finally:
        mine.writer.close()
    assert differences(url) == {}
    assert stored(url, "trades") == 4


@pytest.mark.parametrize(
    ("low", "high", "topic_id", "words"),
    [
        pytest.param(0, 100, "b", "created again", id="a topic with another id"),
        pytest.param(0, 1, "", "has the log end offset 1", id="a log end offset below the stored offset"),
        pytest.param(5, 100, "", "deleted 3 records", id="a topic whose retention was faster"),
    ],
)
def test_refusal_of_an_invalid_offset_has_the_remedy(low: int, high: int, topic_id: str, words: str) -> None:
    reason = refusal(AssignedPartition("trades", 0, topic_id, low, high), 2, "a")
    assert words in reason
    assert "marketfeed-consumer reset-offsets --topic trades --to earliest" in reason
    assert refusal(AssignedPartition("trades", 0, "a", 0, 100), 2, "a") == ""


def test_refusal_is_stored_by_the_owner_and_returned_by_every_later_lease(
    session: Callable[..., Session], database: str
) -> None:
    mine = session()
    mine.write(trade(1))
    mine.writer.submit_refusals(mine.owner, {("trades", 0): "cut"}).result(20)
    mine.writer.submit_refusals(mine.owner, {("trades", 0): "seen again"}).result(20)
    assigned = [AssignedPartition("trades", 0, "", 0, 1_000_000)]
    for name in ("me", "another"):
        (leases,) = mine.writer.submit_acquire("group", name, assigned).result(20)
        assert (leases.refusal, leases.next_offset, leases.leader_epoch) == ("cut", 1, 0)
    mine.writer.submit_refusals(mine.owner, {("book", 0): "of another owner"}).result(20)
    stale = Owner("group", {("book", 0): 0}, {})
    mine.writer.submit_refusals(stale, {("book", 0): "nobody's"}).result(20)
    assert rows(database, "SELECT topic, refusal FROM consumer_offsets ORDER BY 1") == [
        ("book", "of another owner"),
        ("trades", "cut"),
    ]


def test_fencing_of_a_partition_without_a_lease_leaves_no_row(
    session: Callable[..., Session], database: str
) -> None:
    """The compare-and-set is an INSERT: by itself it would create a missing row."""
    stranger = session(group="stranger")
    with psycopg.connect(database) as other:
        other.execute("DELETE FROM consumer_offsets WHERE consumer_group = 'stranger'")
    with pytest.raises(Fenced):
        stranger.write(trade(1))
    assert rows(database, "SELECT * FROM consumer_offsets") == []
    assert stored(database, "trades") == 0


@pytest.mark.parametrize(
    "change",
    [
        pytest.param("SET next_offset = 1, epoch = 1", id="offsets"),
        pytest.param("SET next_offset = 1, epoch = 0, owner = 'whoever was before'", id="claim"),
    ],
)
def test_fencing_by_a_database_that_lost_commits_names_the_cause(
    session: Callable[..., Session], database: str, change: LiteralString
) -> None:
    """Regression: after a fail-over to a replica with lag it reported to be fenced by itself."""
    mine = session()
    mine.write(trade(1))
    mine.write(trade(2))
    with psycopg.connect(database) as failed_over:
        failed_over.execute("UPDATE consumer_offsets " + change + " WHERE topic = 'trades'")
    with pytest.raises(Fenced, match="lost acknowledged commits") as caught:
        mine.write(trade(3))
    assert "another consumer" not in str(caught.value)
    assert stored(database, "trades") == 2


def once_together(gate: threading.Barrier) -> Callable[[str], None]:
    """A failpoint that waits for the other writer when its first transaction begins."""
    passed = []

    def at(point: str) -> None:
        if point == "begun" and not passed:
            passed.append(point)
            gate.wait(10)

    return at


def test_serialization_of_different_partitions_does_not_conflict(database: str) -> None:
    """Both commit at the same moment; neither may have to retry."""
    names = ("first", "second")
    both = [Session(database, name, partition) for partition, name in enumerate(names)]
    symbols = [[f"{name}-{number}" for number in range(8)] for name in names]
    try:
        for each in both:
            each.acquire_leases()
        for turn in range(5):
            gate = threading.Barrier(2)
            for each in both:
                each.writer._at = lambda point, gate=gate: gate.wait(10) if point == "committing" else None
            plans = [
                each.planned(each.batch([one for s in own for one in (trade(turn, s), quote(turn, s))]))
                for each, own in zip(both, symbols, strict=True)
            ]
            futures = [
                each.writer.submit_write(made, each.owner) for each, made in zip(both, plans, strict=True)
            ]
            for future in futures:
                future.result(30)
            for each, made in zip(both, plans, strict=True):
                each.next |= {step.topic: step.next_offset for step in made.offset_advances}
        assert [each.writer.retries for each in both] == [{}, {}]
        assert stored(database, "trades") == 5 * 16
        assert differences(database) == {}
    finally:
        for each in both:
            each.writer.close()


def test_fencing_of_two_owners_lets_one_store(database: str) -> None:
    """Both plan the same records under the same epoch, which Kafka never allows, and conflict."""
    first, second = Session(database, "first"), Session(database, "second")
    try:
        for turn in range(20):
            first.acquire_leases()
            second.next, second.owner = first.next, first.owner
            plans = [s.planned(s.batch([trade(turn * 2), trade(turn * 2 + 1)])) for s in (first, second)]
            gate = threading.Barrier(2)
            first.writer._at, second.writer._at = once_together(gate), once_together(gate)
            futures = [s.writer.submit_write(p, s.owner) for s, p in zip((first, second), plans, strict=True)]
            outcomes = [future.exception(20) for future in futures]
            assert sorted(type(outcome).__name__ for outcome in outcomes) == ["AlreadyCommitted", "NoneType"]
        assert stored(database, "trades") == 40
        assert rows(database, "SELECT sum(trade_count), max(last_trade_id) FROM candles_1m") == [(40, 39)]
    finally:
        first.writer.close()
        second.writer.close()
