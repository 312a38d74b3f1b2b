"""What the closing report says, and when it calls the data complete."""

from typing import Any

import msgspec
import pytest
from rich.console import Console

from marketfeed_cli import report_text
from marketfeed_cli.ranges import IdRange
from marketfeed_cli.report import Facts, Latency, Report, StreamFacts, SymbolFacts, make_report

LATENCY = Latency(1_500, 20_000)


def stream(count: int, **changes: Any) -> StreamFacts:
    facts = StreamFacts(
        sent=count,
        received=count,
        acknowledged=count,
        committed=count,
        duplicates=0,
        repeats=0,
        latency=LATENCY,
    )
    return msgspec.structs.replace(facts, **changes)


def symbol(committed: list[tuple[int, int]], absent: list[tuple[int, int]] | None = None) -> SymbolFacts:
    return SymbolFacts(
        expected=IdRange(1, 10),
        absent=[IdRange(*each) for each in absent or []],
        committed=[IdRange(*each) for each in committed],
        latency=LATENCY,
    )


def facts(**changes: Any) -> Facts:
    whole = Facts(
        trades=stream(10),
        quotes=stream(20),
        symbols={"BTCUSDT": symbol([(1, 10)])},
        repaired=0,
        dead_letters=0,
        failed=0,
    )
    return msgspec.structs.replace(whole, **changes)


def report(**changes: Any) -> Report:
    return make_report(facts(**changes), source="simulator", seconds=3.0)


def test_everything_there_is_complete() -> None:
    made = report()
    assert (made.verdict, made.problems, made.exit_code) == ("complete", [], 0)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        pytest.param(
            {"symbols": {"BTCUSDT": symbol([(1, 3), (5, 8)])}},
            "BTCUSDT: 3 trade ids missing: 4, 9-10",
            id="ids in the middle and at the end",
        ),
        pytest.param(
            {"symbols": {"BTCUSDT": symbol([])}}, "BTCUSDT: 10 trade ids missing: 1-10", id="a whole symbol"
        ),
        pytest.param(
            {"quotes": stream(20, committed=19)},
            "1 quote acknowledged by Kafka and not in the database",
            id="a quote lost after Kafka",
        ),
        pytest.param(
            {"quotes": stream(20, received=18, acknowledged=18, committed=18)},
            "2 quotes of the venue not in the database",
            id="quotes lost before Kafka",
        ),
        pytest.param(
            {"trades": stream(10, committed=11, duplicates=1)},
            "1 duplicate trade row in the database",
            id="a trade twice",
        ),
        pytest.param({"failed": 2}, "2 messages refused by Kafka", id="refused by Kafka"),
        pytest.param(
            {"dead_letters": 1}, "1 message put into the table dead_letters", id="put into dead letters"
        ),
    ],
)
def test_whatever_lacks_is_named_and_the_exit_code_is_1(changes: dict[str, Any], problem: str) -> None:
    made = report(**changes)
    assert problem in made.problems
    assert (made.verdict, made.exit_code) == ("incomplete", 1)


def test_ids_that_the_venue_never_had_are_not_missing() -> None:
    made = report(symbols={"BTCUSDT": symbol([(1, 3), (6, 10)], absent=[(4, 5)])})
    assert made.verdict == "complete"
    assert (made.symbols["BTCUSDT"].expected, made.symbols["BTCUSDT"].absent_at_venue) == (8, 2)


def test_messages_stored_before_are_not_lost() -> None:
    # A recording replayed into a database that had it already: everything repeats, nothing is added.
    assert report(trades=stream(10, repeats=10)).verdict == "complete"


def test_a_live_venue_does_not_tell_what_it_sent() -> None:
    assert report(quotes=stream(20, sent=None)).verdict == "complete"


def test_nothing_at_all_proves_nothing() -> None:
    nothing = SymbolFacts(expected=None, absent=[], committed=[], latency=LATENCY)
    made = report(trades=stream(0), quotes=stream(0), symbols={"BTCUSDT": nothing})
    assert (made.verdict, made.exit_code) == ("empty", 1)


def text_of(made: Report) -> str:
    console = Console(width=100)
    with console.capture() as captured:
        console.print(report_text.render(made))
    return captured.get()


def test_text_shows_every_stage_the_ids_and_the_verdict() -> None:
    text = text_of(report())
    for wanted in ("sent by the venue", "received by the worker", "acknowledged by Kafka", "1.5 ms", "20 ms"):
        assert wanted in text
    assert "complete: all 10 trade ids are in the database, each once" in text
    assert "repaired" not in text
    assert "absent at venue" not in text


def test_text_says_how_many_ids_the_venue_never_had() -> None:
    text = text_of(report(symbols={"BTCUSDT": symbol([(1, 3), (6, 10)], absent=[(4, 5)])}))
    row = next(line for line in text.splitlines() if "BTCUSDT" in line)
    assert "absent at venue" in text
    assert row.split() == ["BTCUSDT", "1", "10", "2", "8", "8", "0"]


def test_text_without_trades_does_not_speak_of_trade_ids() -> None:
    nothing = SymbolFacts(expected=None, absent=[], committed=[], latency=LATENCY)
    text = text_of(report(trades=stream(0), symbols={"BTCUSDT": nothing}))
    assert "complete: no trades, and all 20 quotes are in the database, each once" in text


def test_text_of_a_bad_report_names_each_problem() -> None:
    text = text_of(report(symbols={"BTCUSDT": symbol([(1, 9)])}, repaired=4))
    assert "incomplete" in text
    assert "BTCUSDT: 1 trade id missing: 10" in text
    assert "of these repaired over REST" in text
