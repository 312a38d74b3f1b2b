"""Output of ``marketfeed audit``, and its checks before a connection."""

import os
import subprocess
import sys

import pytest

from marketfeed_cli.__main__ import run
from marketfeed_cli.audit import as_json, summary
from marketfeed_consumers.admin.audit_report import HourReport, Report
from marketfeed_consumers.admin.resolution import Range
from marketfeed_service.errors import SettingsError

MONDAY_US = 1_785_715_200_000_000


@pytest.mark.parametrize(
    ("hour_us", "shown"),
    [
        pytest.param(MONDAY_US, "2026-08-03T00:00Z", id="an hour"),
        pytest.param(0, "1970-01-01T00:00Z", id="first hour"),
        pytest.param(253_402_297_200_000_000, "9999-12-31T23:00Z", id="last hour of the calendar"),
        pytest.param(MONDAY_US * 1000, "1785715200000000000 us", id="nanoseconds instead of microseconds"),
    ],
)  # fmt: skip
def test_audit_formats_every_hour(hour_us: int, shown: str) -> None:
    """A single trade with such a time ended the whole audit with an error."""
    report = Report((HourReport("v", "S", hour_us, 1, 2, 2, ()),), deep=False)
    assert as_json(report)["hours"][0]["hour"] == shown


def test_audit_without_stored_trades_is_not_complete() -> None:
    """A misspelt symbol was reported as complete."""
    report = Report((), deep=False, any_stored=False)
    assert not report.is_complete
    assert "no trades of this scope are stored" in summary(report)
    assert summary(Report((), deep=False)).startswith("complete: 0 trades")


def test_audit_summary_distinguishes_unresolved_rejected_and_expired_ids() -> None:
    missing = (
        Range(1, 4, "unresolved", ""),
        Range(5, 6, "rejected", "dead_letters"),
        Range(7, 9, "expired", ""),
    )
    report = Report((HourReport("v", "S", MONDAY_US, 1, 20, 11, missing),), deep=False)
    assert summary(report).startswith("NOT complete: 4 ids are unresolved, 2 ids were rejected (")
    report = Report((HourReport("v", "S", MONDAY_US, 1, 20, 11, missing[2:]),), deep=True)
    assert summary(report) == ("complete: 11 trades; 3 expired ids were never stored (rows counted)")


def test_audit_rejects_times_in_the_wrong_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """Such a range was reported as complete."""
    monkeypatch.setenv("DATABASE_URL", "postgresql://me@127.0.0.1:1/x")
    with pytest.raises(SettingsError, match="--until must be a later time than --since"):
        run(["audit", "--since", "2026-02-01", "--until", "2026-01-01"])


PRINTS = r"""
import sys
from marketfeed_service.process import exit_code_of
from marketfeed_cli import __main__ as cli, audit
from marketfeed_cli.kubectl import __main__ as kubectl
from marketfeed_consumers import __main__ as consumer
from marketfeed_consumers.admin.audit_report import HourReport, Report
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


def test_output_of_commands_works_without_utf_8() -> None:
    """Each failed with a UnicodeEncodeError if its text or a symbol's name was not in the encoding."""
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "COLUMNS": "80"}
    done = subprocess.run(
        [sys.executable, "-c", PRINTS], env=environment, capture_output=True, encoding="ascii", check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("=== 0\n") == 7
    assert "host:port[,host:port" in done.stdout
    assert r"\u5e01\u5b89USDT" in done.stdout
