"""Id resets with real processes and the simulator: two workers of one symbol, and without REST."""

from collections.abc import Iterator

import pytest
from workers_line import Line, Worker

from marketfeed_devtools.waiting import until
from marketfeed_wire import Trade

SYMBOL = "BTCUSDT"


@pytest.fixture(scope="module")
def one_line(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Line]:
    with Line(
        tmp_path_factory.mktemp("series"), "generate", "--trade-rate", "20", "--quote-rate", "20"
    ) as running:
        yield running


@pytest.fixture
def line(one_line: Line) -> Line:
    one_line.reset()
    return one_line


def series(worker: Worker) -> tuple[int, int]:
    each = worker.status().symbols[SYMBOL]
    return each.id_series, each.quote_series


def contents(trades: list[Trade]) -> dict[tuple[int, int], tuple[str, str, int]]:
    """Return (series, id) -> content of the trade; two trades of one id must be equal."""
    found: dict[tuple[int, int], tuple[str, str, int]] = {}
    for one in trades:
        content = (one.price, one.qty, one.trade_time_us // 1000)
        assert found.setdefault((one.id_series, one.trade_id), content) == content
    return found


def test_id_series_is_the_same_for_two_workers_of_a_symbol(line: Line) -> None:
    workers = [line.worker(BINANCE_SYMBOLS=SYMBOL, SHARD=f"hot-{n}") for n in range(2)]
    until(lambda: line.traded(SYMBOL) > 40, "trades")
    line.fault("restart_ids", symbols=[SYMBOL], last_id=0)
    until(lambda: all(series(each) == (1, 1) for each in workers), "both to begin the series")
    before = [worker.status().symbols[SYMBOL].last_trade_id or 0 for worker in workers]
    until(
        lambda: all(
            (each.status().symbols[SYMBOL].last_trade_id or 0) > was + 20
            and not each.status().symbols[SYMBOL].missing
            for each, was in zip(workers, before, strict=True)
        ),
        "trades of the new series",
    )
    assert [worker.stop() for worker in workers] == [0, 0]
    stored = contents(line.trades()[SYMBOL])
    second = sorted(trade_id for id_series, trade_id in stored if id_series == 1)
    assert second == list(range(1, second[-1] + 1))
    assert {id_series for id_series, _ in stored} == {0, 1}


def test_id_series_undecided_without_rest_makes_a_worker_not_ready(tmp_path_factory) -> None:
    """Fewer than ten trades decide nothing: they were held silently, and the worker was ready."""
    folder = tmp_path_factory.mktemp("held")
    with Line(folder, "generate", "--trade-rate", "0.2", "--quote-rate", "20") as line:
        worker = line.worker(BINANCE_SYMBOLS=SYMBOL, READY_QUIET_SECONDS="120")
        until(lambda: (worker.status().symbols[SYMBOL].last_trade_id or 0) > 0, "a trade", 60)
        line.fault("rest_error", status=503)
        line.fault("restart_ids", symbols=[SYMBOL], last_id=0)
        until(lambda: "are held: " in worker.status().reason, "the reason", 60)
        assert worker.metric("marketfeed_trades_held") > 0
        line.control("DELETE", "faults")
        until(lambda: series(worker)[0] == 1, "the series")
        until(worker.ready, "the worker to be ready")
        assert worker.metric("marketfeed_trades_held") == 0
        assert worker.stop() == 0
        stored = contents(line.trades()[SYMBOL])
        second = sorted(trade_id for id_series, trade_id in stored if id_series == 1)
        assert second == list(range(1, len(second) + 1))
