"""What ``marketfeed audit`` prints, and says without asking the database."""

import os
import subprocess
import sys

import pytest

from marketfeed_chassis.errors import SettingsError
from marketfeed_cli.__main__ import run
from marketfeed_cli.audit import as_json, verdict
from marketfeed_consumers.audit import HourReport, Report
from marketfeed_consumers.judgement import Range

MONDAY_US = 1_785_715_200_000_000


@pytest.mark.parametrize(
    ("hour_us", "shown"),
    [
        pytest.param(MONDAY_US, "2026-08-03T00:00Z", id="an hour"),
        pytest.param(0, "1970-01-01T00:00Z", id="the first hour that a message can name"),
        pytest.param(253_402_297_200_000_000, "9999-12-31T23:00Z", id="the last hour of the calendar"),
        pytest.param(MONDAY_US * 1000, "1785715200000000000 us", id="nanoseconds taken for microseconds"),
    ],
)  # fmt: skip
def test_every_hour_can_be_shown(hour_us: int, shown: str) -> None:
    """One trade with such a time made the audit of all end with an error."""
    report = Report((HourReport("v", "S", hour_us, 1, 2, 2, ()),), deep=False)
    assert as_json(report)["hours"][0]["hour"] == shown


def test_what_is_not_stored_at_all_is_not_complete() -> None:
    """Of a symbol that was misspelt it was said that it is complete."""
    report = Report((), deep=False, any_stored=False)
    assert not report.is_complete
    assert "no trades are stored of what was asked for" in verdict(report)
    assert verdict(Report((), deep=False)).startswith("complete: 0 trades")


def test_the_verdict_tells_what_was_rejected_from_what_never_came_and_from_what_is_older_than_kept() -> None:
    missing = (
        Range(1, 4, "unresolved", ""),
        Range(5, 6, "rejected", "dead_letters"),
        Range(7, 9, "expired", ""),
    )
    report = Report((HourReport("v", "S", MONDAY_US, 1, 20, 11, missing),), deep=False)
    assert verdict(report).startswith("NOT complete: 4 ids are unresolved, 2 ids were rejected (")
    report = Report((HourReport("v", "S", MONDAY_US, 1, 20, 11, missing[2:]),), deep=True)
    assert verdict(report) == (
        "complete: 11 trades; 3 older ids than are kept were never stored (the rows were counted)"
    )


def test_times_in_the_wrong_order_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """It was said that all is complete between them."""
    monkeypatch.setenv("DATABASE_URL", "postgresql://me@127.0.0.1:1/x")
    with pytest.raises(SettingsError, match="--until must be a later time than --since"):
        run(["audit", "--since", "2026-02-01", "--until", "2026-01-01"])


PRINTS = r"""
import sys
from marketfeed_chassis.process import exit_code_of
from marketfeed_cli import __main__ as cli, audit
from marketfeed_cli.kubectl import __main__ as kubectl
from marketfeed_consumers import __main__ as consumer
from marketfeed_consumers.audit import HourReport, Report
from marketfeed_simulator import __main__ as simulator
from marketfeed_workers import __main__ as worker

def printed(main, *arguments):
    sys.stdout.reconfigure(errors="strict")
    sys.argv = ["program", *arguments]
    try:
        main()
    except SystemExit as end:
        print("===", end.code)

printed(cli.main, "demo", "--help")
printed(kubectl.main, "plan", "--help")
printed(consumer.main, "--help")
printed(consumer.main, "reset-offsets", "--help")
printed(worker.main, "--help")
printed(simulator.main, "--help")
report = Report((HourReport("v", "\u5e01\u5b89USDT", 0, 1, 2, 2, ()),), deep=False)
printed(lambda: exit_code_of(lambda: audit.show(report)))
print("===", 0)
"""


def test_commands_print_on_a_terminal_that_is_not_utf_8() -> None:
    """Each ended in a UnicodeEncodeError where its text, or a symbol's name, holds more than the encoding."""
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "COLUMNS": "80"}
    done = subprocess.run(
        [sys.executable, "-c", PRINTS], env=environment, capture_output=True, encoding="ascii", check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("=== 0\n") == 7
    assert "host:port[,host:port" in done.stdout
    assert r"\u5e01\u5b89USDT" in done.stdout
