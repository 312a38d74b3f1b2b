"""Detection of the end of a run: all messages received and stored, or no progress."""

import pytest

from marketfeed_cli.drain import StallTimer, caught_up, is_connecting, is_stored
from marketfeed_cli.observe import Ledger, SymbolLedger
from marketfeed_wire.status import (
    ConnectionState,
    ConnectionStatus,
    ConsumerStatus,
    PartitionStatus,
    SymbolStatus,
    WorkerStatus,
)


def worker(
    last_trade_id: int | None = 10,
    *,
    quotes: int = 5,
    missing: int = 0,
    pending: int = 0,
    state: ConnectionState = "streaming",
) -> WorkerStatus:
    connection = ConnectionStatus(
        id=0,
        state=state,
        streams=2,
        connected_time_us=None,
        last_frame_time_us=None,
        reconnects=0,
        reason="",
    )
    symbol = SymbolStatus(
        trades=10,
        quotes=quotes,
        last_trade_id=last_trade_id,
        last_trade_time_us=None,
        missing=missing,
        duplicates=0,
    )
    return WorkerStatus(
        version="1",
        venue="binance_us",
        shard="0",
        ready=True,
        reason="",
        symbols={"BTCUSDT": symbol},
        refused_symbols={},
        connections=[connection],
        received={},
        acknowledged={},
        failed={},
        pending=pending,
    )


def ledger(last_trade_id: int | None = 10, quotes: int = 5, symbol: str = "BTCUSDT") -> Ledger:
    entry = SymbolLedger(
        trades=10,
        first_trade_id=1,
        last_trade_id=last_trade_id,
        absent_trade_ids=[],
        quotes=quotes,
        first_update_id=1,
        last_update_id=quotes,
        repeated_frames=0,
        other_frames=0,
    )
    return Ledger(finished=True, symbols={symbol: entry})


def consumer(**next_offsets: int) -> ConsumerStatus:
    partitions = [
        PartitionStatus(topic=topic, partition=0, next_offset=offset, end_offset=None)
        for topic, offset in next_offsets.items()
    ]
    return ConsumerStatus(
        version="1",
        group="g",
        ready=True,
        reason="",
        partitions=partitions,
        inserted={},
        duplicates={},
        dead_letters=0,
        symbols={},
        latency_p50_us=None,
        latency_p99_us=None,
    )


@pytest.mark.parametrize(
    ("received", "sent", "expected"),
    [
        pytest.param(worker(), ledger(), True, id="all received and acknowledged"),
        pytest.param(worker(9), ledger(), False, id="the last trade is in flight"),
        pytest.param(worker(None), ledger(), False, id="no trade received yet"),
        pytest.param(worker(quotes=4), ledger(), False, id="the last quote is in flight"),
        pytest.param(worker(pending=1), ledger(), False, id="a message is not acknowledged"),
        pytest.param(worker(missing=1), ledger(), False, id="an open gap"),
        pytest.param(worker(None), ledger(None), True, id="there were no trades"),
        pytest.param(worker(), ledger(99, symbol="ETHUSDT"), True, id="a symbol that is not subscribed"),
        pytest.param(worker(pending=7), None, True, id="a live venue with in-flight messages"),
        pytest.param(worker(missing=1), None, False, id="a live venue with an open gap"),
    ],
)
def test_drain_detects_that_the_worker_has_caught_up(
    received: WorkerStatus, sent: Ledger | None, expected: bool
) -> None:
    assert caught_up(received, sent) is expected


@pytest.mark.parametrize(
    ("consumers", "ends", "expected"),
    [
        pytest.param([consumer(a=5)], {"a": {0: 5}}, True, id="at the end"),
        pytest.param([consumer(a=4)], {"a": {0: 5}}, False, id="one before the end"),
        pytest.param([], {"a": {0: 5}}, False, id="no consumer"),
        pytest.param([], {"a": {0: 0}}, True, id="empty topic"),
        pytest.param([consumer(a=5), consumer(b=7)], {"a": {0: 5}, "b": {0: 8}}, False, id="one of two"),
    ],
)
def test_drain_detects_that_all_messages_are_stored(
    consumers: list[ConsumerStatus], ends: dict[str, dict[int, int]], expected: bool
) -> None:
    assert is_stored(consumers, ends) is expected


@pytest.mark.parametrize(("state", "expected"), [("waiting", True), ("connecting", True), ("refused", False)])
def test_drain_waits_for_connections_that_reconnect(state: ConnectionState, expected: bool) -> None:
    assert is_connecting(worker(state=state)) is expected


def test_drain_stall_timer_starts_at_the_last_change() -> None:
    now = [100.0]
    timer = StallTimer(lambda: now[0])
    assert timer.seconds(7) == 0
    now[0] += 3
    assert timer.seconds(7) == 3
    assert timer.seconds(8) == 0
    now[0] += 2
    assert timer.seconds(8, reset=True) == 0
    now[0] += 1
    assert timer.seconds(8) == 1
