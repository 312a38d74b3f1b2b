"""How symbols are spread over connections, and the assignment file that changes them while they run."""

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from workers_line import Line, assert_complete

from marketfeed_devtools.waiting import until
from marketfeed_wire.assignment import assignment_of, encode_assignment
from marketfeed_workers.fleet import spread

symbols = st.lists(st.sampled_from([f"S{n}" for n in range(30)]), unique=True)


@given(symbols, symbols, st.integers(1, 7))
def test_each_symbol_has_one_place_and_keeps_it(before: list[str], wanted: list[str], size: int) -> None:
    old = spread([], before, size)
    new = spread(old, wanted, size)
    assert sorted(symbol for place in new for symbol in place) == sorted(wanted)
    assert all(len(place) <= size for place in new)
    for number, place in enumerate(old):
        assert set(place) & set(wanted) <= set(new[number])
    assert spread(new, wanted, size) == new


def test_no_more_connections_than_needed() -> None:
    assert [len(place) for place in spread([], [f"S{n}" for n in range(10)], 4)] == [4, 4, 2]


def write(file: Path, *names: str, budget_share: int | None = None) -> str:
    assignment = assignment_of(names, budget_share)
    temporary = file.with_suffix(".new")
    temporary.write_bytes(encode_assignment(assignment))
    temporary.replace(file)
    return assignment.hash


def test_symbols_come_and_go_without_a_restart_or_a_reconnect(tmp_path: Path) -> None:
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
        until(lambda: not any(each.missing for each in worker.status().symbols.values()), "repair")
        assert all(connection.reconnects == 0 for connection in worker.status().connections)
        assert worker.stop() == 0
        assert_complete(line)


def test_the_share_of_the_venues_budgets_follows_the_file_and_touches_no_stream(tmp_path: Path) -> None:
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
        assert "symbols change" not in worker.log.read_text()


def test_a_broken_file_changes_nothing_and_is_told(tmp_path: Path) -> None:
    with Line(tmp_path) as line:
        file = tmp_path / "assignment.json"
        applied = write(file, "BTCUSDT")
        worker = line.worker(BINANCE_SYMBOLS="", SYMBOLS_FILE=str(file))
        until(lambda: worker.status().assignment == applied, "the assignment")
        file.write_text('{"symbols": ["BTCUSDT", "ETH')
        until(lambda: "could not be followed" in worker.log.read_text(), "a word about the broken file")
        assert sorted(worker.status().symbols) == ["BTCUSDT"]
        assert worker.status().ready
        applied = write(file, "BTCUSDT", "ETHUSDT")
        until(lambda: worker.status().assignment == applied, "the whole file")


def test_a_symbol_that_moves_loses_nothing(tmp_path: Path) -> None:
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
        until(lambda: old.status().assignment == left, "the old shard to let go")
        until(lambda: new.status().symbols["ETHUSDT"].trades > 100, "trades in the new shard")
        assert old.stop() == new.stop() == 0
        ids = [trade.trade_id for trade in line.trades()["ETHUSDT"]]
        assert set(ids) == set(range(min(ids), max(ids) + 1))


def test_only_the_streams_that_are_wanted_are_read(tmp_path: Path) -> None:
    with Line(tmp_path) as line:
        quotes = line.worker(BINANCE_STREAMS="bookTicker", BINANCE_SYMBOLS="ETHUSDT")
        until(lambda: quotes.status().symbols["ETHUSDT"].quotes > 50, "quotes")
        status = quotes.status()
        assert status.ready
        assert status.connections[0].streams == 1
        assert status.symbols["ETHUSDT"].trades == 0
