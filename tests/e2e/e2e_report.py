#!/usr/bin/env python3
"""The report of a run: for each journey trades sent, stored, missing and twice, recovery times, versions.

python tests/e2e/e2e_report.py REPORT.json             print its table
python tests/e2e/e2e_report.py REPORT.json --write F   write the table into the document F, between its marks
"""

import argparse
import json
import re
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

BEGIN: Final = "<!-- report: made by tests/e2e/e2e_report.py of a real run -->"
END: Final = "<!-- end of report -->"


@dataclass
class Journey:
    """Result of one journey.

    Attributes:
        name: title.
        outcome: passed, failed, or the reason why it was skipped.
        sent: number of trades that the venue sent by the journey's end.
        stored: number of these in the database.
        missing: number of these that are not.
        twice: number of trades stored more than once.
        candles: one-minute candles compared with an aggregate of the trades.
        wrong_candles: those that differ.
        recovery_seconds: fault -> seconds until recovery.
        seconds: duration of the journey.
    """

    name: str
    outcome: str = "not run"
    sent: int = 0
    stored: int = 0
    missing: int = 0
    twice: int = 0
    candles: int = 0
    wrong_candles: int = 0
    recovery_seconds: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0


@dataclass
class Report:
    """A run.

    Attributes:
        command: command that started it.
        began: start time, UTC, as text.
        versions: component -> version.
        timings_seconds: set-up step -> its duration.
        journeys: journeys in the order of their execution.
    """

    command: str
    began: str
    versions: dict[str, str] = field(default_factory=dict)
    timings_seconds: dict[str, float] = field(default_factory=dict)
    journeys: list[Journey] = field(default_factory=list)

    def write(self, file: Path) -> None:
        """Write the report as JSON."""
        file.write_text(json.dumps(asdict(self), indent=1) + "\n")


def read(file: Path) -> Report:
    """Read a report."""
    raw: dict[str, Any] = json.loads(file.read_text())
    return Report(**{**raw, "journeys": [Journey(**each) for each in raw["journeys"]]})


def table(report: Report) -> str:
    """Return the report as Markdown."""
    lines = [
        f"Made by `{report.command}` on {report.began}.",
        "",
        "| journey | outcome | sent | stored | missing | twice | candles compared / wrong | recovery |",
        "|---|---|--:|--:|--:|--:|--:|---|",
    ]
    for each in report.journeys:
        recovery = ", ".join(f"{what} {seconds:.0f} s" for what, seconds in each.recovery_seconds.items())
        lines.append(
            f"| {each.name} | {each.outcome} | {each.sent} | {each.stored} | {each.missing} | {each.twice} "
            f"| {each.candles} / {each.wrong_candles} | {recovery} |"
        )
    versions = ", ".join(f"{part} {version}" for part, version in report.versions.items())
    timings = ", ".join(f"{what} {seconds:.0f} s" for what, seconds in report.timings_seconds.items())
    return "\n".join([*lines, "", f"Versions: {versions}.", "", f"Set-up: {timings}."])


def put(document: str, text: str) -> str:
    """Return `document` with `text` between its marks.

    Raises:
        ValueError: it has no marks.
    """
    made, found = re.subn(
        f"{re.escape(BEGIN)}.*?{re.escape(END)}",
        lambda _: f"{BEGIN}\n\n{text}\n\n{END}",
        document,
        count=1,
        flags=re.S,
    )
    if not found:
        raise ValueError(f"the document has no marks {BEGIN} … {END}")
    return made


def main() -> None:
    """Print a report's table, or write it into a document."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("report", type=Path)
    parser.add_argument("--write", type=Path, metavar="FILE")
    options = parser.parse_args()
    text = table(read(options.report))
    if options.write:
        options.write.write_text(put(options.write.read_text(), text))
    else:
        print(text)


if __name__ == "__main__":
    main()
