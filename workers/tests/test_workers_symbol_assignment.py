"""Distribution of symbols over connections, and changes of the assignment file."""

import asyncio
from contextlib import suppress
from pathlib import Path

import pytest
from confluent_kafka import Producer
from hypothesis import given
from hypothesis import strategies as st
from workers_line import Line, assert_complete

from marketfeed_devtools.waiting import until
from marketfeed_service import settings as service_settings
from marketfeed_wire import Checkpoint, Gap, checkpoint_key, encode, gap_key
from marketfeed_wire.assignment import assignment_of, encode_assignment
from marketfeed_workers import symbol_assignment
from marketfeed_workers import worker as worker_life
from marketfeed_workers.connection.pool import spread
from marketfeed_workers.settings import WorkerSettings

symbols = st.lists(st.sampled_from([f"S{n}" for n in range(30)]), unique=True)


@given(symbols, symbols, st.integers(1, 7))
def test_pool_keeps_each_symbol_on_its_connection(before: list[str], needed: list[str], size: int) -> None:
    old = spread([], before, size)
    new = spread(old, needed, size)
    assert sorted(symbol for place in new for symbol in place) == sorted(needed)
    assert all(len(place) <= size for place in new)
    for number, place in enumerate(old):
        assert set(place) & set(needed) <= set(new[number])
    assert spread(new, needed, size) == new


def test_pool_has_no_more_connections_than_needed() -> None:
    assert [len(place) for place in spread([], [f"S{n}" for n in range(10)], 4)] == [4, 4, 2]


def write(file: Path, *names: str, budget_share: int | None = None) -> str:
    assignment = assignment_of(names, budget_share)
    temporary = file.with_suffix(".new")
    temporary.write_bytes(encode_assignment(assignment))
    temporary.replace(file)
    return assignment.hash


def test_assignment_change_without_restart_or_reconnect(tmp_path: Path) -> None:
    market = ("generate", "--symbols", "AAAUSDT,BBBUSDT,CCCUSDT", "--trade-rate", "100", "--quote-rate", "20")
    with Line(tmp_path, *market) as line:
        file = tmp_path / "assignment.json"
        first = write(file, "AAAUSDT", "BBBUSDT")
        worker = line.worker(BINANCE_SYMBOLS="", SYMBOLS_FILE=str(file), WS_SHARD_SIZE="2")
        until(lambda: worker.status().assignment == first, "the first assignment")
        second = write(file, "BBBUSDT", "CCCUSDT", "NOSUCH")
        until(lambda: worker.status().assignment == second, "the second assignment")
        status = worker.status()
        assert sorted(status.symbols) == ["BBBUSDT", "CCCUSDT"]
        assert status.refused_symbols == {"NOSUCH": "unknown to the venue"}
        until(lambda: worker.status().symbols["CCCUSDT"].trades > 50, "trades of the new symbol")
        third = write(file, "AAAUSDT", "BBBUSDT", "CCCUSDT")
        until(lambda: worker.status().assignment == third, "the third assignment")
        until(lambda: len(worker.status().connections) == 2, "a second connection")
        until(lambda: worker.status().symbols["AAAUSDT"].trades > 50, "trades of the symbol that came back")
        until(lambda: not any(each.missing for each in worker.status().symbols.values()), "the backfill")
        assert all(connection.reconnects == 0 for connection in worker.status().connections)
        assert worker.stop() == 0
        assert_complete(line)


def test_assignment_change_of_the_budget_share(tmp_path: Path) -> None:
    def attempts_limit() -> float:
        return worker.metric("marketfeed_connection_attempts_limit")

    with Line(tmp_path) as line:
        file = tmp_path / "assignment.json"
        applied = write(file, "BTCUSDT", budget_share=3)
        worker = line.worker(BINANCE_SYMBOLS="", SYMBOLS_FILE=str(file), VENUE_BUDGET_SHARE="2")
        assert attempts_limit() == 100
        write(file, "BTCUSDT", budget_share=30)
        until(lambda: attempts_limit() == 10, "the smaller share")
        write(file, "BTCUSDT")
        until(lambda: attempts_limit() == 150, "the share of the settings, where the file names none")
        assert (worker.status().assignment, line.connections()["accepted"]) == (applied, 1)
        assert "symbols changed" not in worker.log.read_text()


def test_assignment_file_that_is_invalid_is_reported_and_ignored(tmp_path: Path) -> None:
    with Line(tmp_path) as line:
        file = tmp_path / "assignment.json"
        applied = write(file, "BTCUSDT")
        worker = line.worker(BINANCE_SYMBOLS="", SYMBOLS_FILE=str(file))
        until(lambda: worker.status().assignment == applied, "the assignment")
        file.write_text('{"symbols": ["BTCUSDT", "ETH')
        until(lambda: "assignment not applied" in worker.log.read_text(), "a log line about the invalid file")
        assert sorted(worker.status().symbols) == ["BTCUSDT"]
        assert worker.status().ready
        applied = write(file, "BTCUSDT", "ETHUSDT")
        until(lambda: worker.status().assignment == applied, "the whole file")


def test_assignment_move_of_a_symbol_loses_nothing(tmp_path: Path) -> None:
    with Line(tmp_path) as line:
        old_file, new_file = tmp_path / "old.json", tmp_path / "new.json"
        write(old_file, "BTCUSDT", "ETHUSDT")
        write(new_file)
        old = line.worker(BINANCE_SYMBOLS="", SYMBOLS_FILE=str(old_file), SHARD="0")
        new = line.worker(BINANCE_SYMBOLS="", SYMBOLS_FILE=str(new_file), SHARD="1")
        until(lambda: old.status().symbols["ETHUSDT"].trades > 50, "trades in the old shard")
        moved = write(new_file, "ETHUSDT")
        until(lambda: new.status().assignment == moved, "the new shard to have it")
        left = write(old_file, "BTCUSDT")
        until(lambda: old.status().assignment == left, "the old shard to drop it")
        until(lambda: new.status().symbols["ETHUSDT"].trades > 100, "trades in the new shard")
        assert old.stop() == new.stop() == 0
        ids = [trade.trade_id for trade in line.trades()["ETHUSDT"]]
        assert set(ids) == set(range(min(ids), max(ids) + 1))


def test_streams_setting_limits_the_subscriptions(tmp_path: Path) -> None:
    with Line(tmp_path) as line:
        quotes = line.worker(BINANCE_STREAMS="bookTicker", BINANCE_SYMBOLS="ETHUSDT")
        until(lambda: quotes.status().symbols["ETHUSDT"].quotes > 50, "quotes")
        status = quotes.status()
        assert status.ready
        assert status.connections[0].streams == 1
        assert status.symbols["ETHUSDT"].trades == 0


THREE = ("generate", "--symbols", "AAAUSDT,BBBUSDT,CCCUSDT", "--trade-rate", "100", "--quote-rate", "20")


def test_assignment_change_during_a_broker_outage(tmp_path: Path) -> None:
    with Line(tmp_path) as line:
        file = tmp_path / "assignment.json"
        write(file, "BTCUSDT")
        worker = line.worker(BINANCE_SYMBOLS="", SYMBOLS_FILE=str(file), START_DEADLINE_SECONDS="2")
        line.broker_down()
        changed = write(file, "BTCUSDT", "ETHUSDT")
        until(lambda: "assignment not applied" in worker.log.read_text(), "a log line about it")
        line.broker_up()
        until(lambda: worker.status().assignment == changed, "the change", 60)
        until(lambda: worker.status().symbols["ETHUSDT"].trades > 50, "trades of the new symbol")
        assert worker.stop() == 0
        assert_complete(line)


def test_assignment_change_keeps_a_halted_symbol(tmp_path: Path) -> None:
    with Line(tmp_path, *THREE) as line:
        file = tmp_path / "assignment.json"
        first = write(file, "AAAUSDT", "BBBUSDT")
        worker = line.worker(BINANCE_SYMBOLS="", SYMBOLS_FILE=str(file))
        until(lambda: worker.status().assignment == first, "the first assignment")
        line.fault("halt", symbols=["AAAUSDT"])
        second = write(file, "AAAUSDT", "BBBUSDT", "CCCUSDT")
        until(lambda: worker.status().assignment == second, "the second assignment")
        before = worker.status().symbols["AAAUSDT"].trades
        line.fault("resume", symbols=["AAAUSDT"])
        until(lambda: worker.status().symbols["AAAUSDT"].trades > before + 50, "trades after the halt")
        assert worker.stop() == 0
        assert_complete(line)


async def test_assignment_of_a_rejected_symbol_is_retried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(symbol_assignment, "RECHECK_SECONDS", 0.5)
    with Line(tmp_path, *THREE) as line:
        await asyncio.to_thread(line.fault, "halt", symbols=["AAAUSDT"])
        environment = line.environment(BINANCE_SYMBOLS="AAAUSDT,BBBUSDT")
        life = asyncio.create_task(worker_life.run(service_settings.read(WorkerSettings, environment)))
        await asyncio.to_thread(until, lambda: len(line.trades()["BBBUSDT"]) > 20, "the other symbol")
        assert line.trades()["AAAUSDT"] == []
        await asyncio.to_thread(line.fault, "resume", symbols=["AAAUSDT"])
        await asyncio.to_thread(until, lambda: len(line.trades()["AAAUSDT"]) > 20, "its trades")
        life.cancel()
        with suppress(asyncio.CancelledError):
            await life


def test_assignment_of_a_quiet_symbol_backfills_its_gap(tmp_path: Path) -> None:
    with Line(tmp_path) as line:
        file = tmp_path / "assignment.json"
        write(file, "BTCUSDT")
        worker = line.worker(
            BINANCE_SYMBOLS="", SYMBOLS_FILE=str(file), VALIDATE_ON_START="false", BINANCE_API_KEY="k"
        )
        until(lambda: line.traded("ETHUSDT") > 100, "some history")
        line.fault("halt", symbols=["ETHUSDT"])
        last_id = line.ledger()["ETHUSDT"]["last_trade_id"]
        gap = Gap(
            venue="binance_us", symbol="ETHUSDT", first_id=last_id - 20, last_id=last_id - 11,
            state="unresolved", missing=[(last_id - 20, last_id - 11)], absent=[], proof="trades",
            detected_time_us=1, updated_time_us=1,
        )  # fmt: skip
        progress = Checkpoint("binance_us", "ETHUSDT", last_id, 1)
        producer = Producer({"bootstrap.servers": line.broker_address})
        producer.produce(line.topics["gaps"], encode(gap), gap_key(gap))
        producer.produce(line.topics["progress"], encode(progress), checkpoint_key("binance_us", "ETHUSDT"))
        assert producer.flush(20) == 0
        added = write(file, "BTCUSDT", "ETHUSDT")
        until(lambda: worker.status().assignment == added, "the symbol")
        until(lambda: {each.state for each in line.gaps()} == {"backfilled"}, "the backfill of its gap")


def test_assignment_removal_of_a_symbol_removes_its_status(tmp_path: Path) -> None:
    with Line(tmp_path) as line:
        file = tmp_path / "assignment.json"
        write(file, "BTCUSDT", "ETHUSDT")
        worker = line.worker(BINANCE_SYMBOLS="", SYMBOLS_FILE=str(file))
        line.fault("delist", symbols=["ETHUSDT"])
        until(lambda: worker.status().refused_symbols == {"ETHUSDT": "delisted"}, "the delisting", 60)
        left = write(file, "BTCUSDT")
        until(lambda: worker.status().assignment == left, "the change")
        until(lambda: worker.status().refused_symbols == {}, "no status of an unassigned symbol")
        assert worker.metric("marketfeed_symbol_refused") == 0
