"""What ``marketfeed audit`` prints, and says without asking the database."""

import pytest

from marketfeed_chassis.errors import SettingsError
from marketfeed_cli.__main__ import run
from marketfeed_cli.audit import as_json, verdict
from marketfeed_consumers.audit import HourReport, Report

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


def test_times_in_the_wrong_order_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """It was said that all is complete between them."""
    monkeypatch.setenv("DATABASE_URL", "postgresql://me@127.0.0.1:1/x")
    with pytest.raises(SettingsError, match="--until must be a later time than --since"):
        run(["audit", "--since", "2026-02-01", "--until", "2026-01-01"])
