"""Final report: completeness, problems and text output."""

from typing import Any

import msgspec
import pytest
from rich.console import Console

from marketfeed_cli import report_text
from marketfeed_cli.report import Facts, Latency, Report, StreamFacts, SymbolFacts, make_report, ranges_text
from marketfeed_service.id_ranges import IdRange, of_ids

LATENCY = Latency(1_500, 20_000)


def stream(count: int, **changes: Any) -> StreamFacts:
    facts = StreamFacts(
        sent=count,
        received=count,
        acknowledged=count,
        committed=count,
        duplicates=0,
        duplicates_skipped=0,
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
        backfilled=0,
        dead_letters=0,
        failed=0,
    )
    return msgspec.structs.replace(whole, **changes)


def report(**changes: Any) -> Report:
    return make_report(facts(**changes), source="simulator", seconds=3.0)


def test_report_of_complete_data() -> None:
    made = report()
    assert (made.result, made.problems, made.exit_code) == ("complete", [], 0)


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
        pytest.param({"failed": 2}, "2 messages rejected by Kafka", id="rejected by Kafka"),
        pytest.param({"dead_letters": 1}, "1 message written to the table dead_letters", id="dead letters"),
    ],
)
def test_report_lists_problems_and_exits_with_1(changes: dict[str, Any], problem: str) -> None:
    made = report(**changes)
    assert problem in made.problems
    assert (made.result, made.exit_code) == ("incomplete", 1)


def test_report_does_not_count_absent_ids_as_missing() -> None:
    made = report(symbols={"BTCUSDT": symbol([(1, 3), (6, 10)], absent=[(4, 5)])})
    assert made.result == "complete"
    assert (made.symbols["BTCUSDT"].expected, made.symbols["BTCUSDT"].absent_at_venue) == (8, 2)


def test_report_does_not_count_skipped_duplicates_as_lost() -> None:
    # A recording that is replayed into the same database: all messages are duplicates, no row is inserted.
    assert report(trades=stream(10, duplicates_skipped=10)).result == "complete"


def test_report_of_a_live_venue_has_no_sent_count() -> None:
    assert report(quotes=stream(20, sent=None)).result == "complete"


def test_report_without_messages_is_empty() -> None:
    nothing = SymbolFacts(expected=None, absent=[], committed=[], latency=LATENCY)
    made = report(trades=stream(0), quotes=stream(0), symbols={"BTCUSDT": nothing})
    assert (made.result, made.exit_code) == ("empty", 1)


def text_of(made: Report) -> str:
    console = Console(width=100)
    with console.capture() as captured:
        console.print(report_text.render(made))
    return captured.get()


def test_report_text_has_stages_ids_and_summary() -> None:
    text = text_of(report())
    for expected in (
        "sent by the venue",
        "received by the worker",
        "acknowledged by Kafka",
        "1.5 ms",
        "20 ms",
    ):
        assert expected in text
    assert "complete: all 10 trade ids are in the database, without duplicates" in text
    assert "backfilled" not in text
    assert "absent at venue" not in text


def test_report_text_has_the_number_of_absent_ids() -> None:
    text = text_of(report(symbols={"BTCUSDT": symbol([(1, 3), (6, 10)], absent=[(4, 5)])}))
    row = next(line for line in text.splitlines() if "BTCUSDT" in line)
    assert "absent at venue" in text
    assert row.split() == ["BTCUSDT", "1", "10", "2", "8", "8", "0"]


def test_report_text_without_trades_counts_quotes() -> None:
    nothing = SymbolFacts(expected=None, absent=[], committed=[], latency=LATENCY)
    text = text_of(report(trades=stream(0), symbols={"BTCUSDT": nothing}))
    assert "complete: no trades, and all 20 quotes are in the database, without duplicates" in text


def test_report_text_lists_each_problem() -> None:
    text = text_of(report(symbols={"BTCUSDT": symbol([(1, 9)])}, backfilled=4))
    assert "incomplete" in text
    assert "BTCUSDT: 1 trade id missing: 10" in text
    assert "of these backfilled over REST" in text


def test_report_ranges_text_lists_the_first_and_counts_the_rest() -> None:
    found = of_ids([1, 2, 3, 5, 7, 8])
    assert ranges_text(found) == "1-3, 5, 7-8"
    assert ranges_text(found, limit=1) == "1-3 and 2 more ranges"
    assert ranges_text(found, limit=2) == "1-3, 5 and 1 more range"
