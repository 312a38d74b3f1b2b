#!/usr/bin/env python3
"""What the test runner's own reports say: tests that were skipped, by reason, and tests that passed only when repeated.

    report.py [--count-unsteady] FOLDER NAME...

NAME.xml in FOLDER is the report of a run, NAME.again.xml that of the repetition of what failed in it.
"""

import argparse
import collections
from pathlib import Path
from xml.etree import ElementTree


def cases(file: Path) -> dict[str, str]:
    """Test -> "passed", "failed" or "skipped: REASON"; empty where the runner left no report."""
    if not file.exists() or not file.stat().st_size:
        return {}
    found: dict[str, str] = {}
    for case in ElementTree.parse(file).iter("testcase"):  # noqa: S314 - our own test runner wrote it
        name = f"{case.get('classname', '')}::{case.get('name', '')}"
        skipped = case.find("skipped")
        if case.find("failure") is not None or case.find("error") is not None:
            found[name] = "failed"
        elif skipped is not None:
            found.setdefault(name, f"skipped: {skipped.get('message', '')}")
        else:
            found.setdefault(name, "passed")  # an error of its teardown is a case of its own
    return found


def unsteady(folder: Path, name: str) -> list[str]:
    """Tests that failed in the run and passed in its repetition."""
    repeated = cases(folder / f"{name}.again.xml")
    first = cases(folder / f"{name}.xml")
    return sorted(
        test for test, outcome in first.items() if (outcome, repeated.get(test)) == ("failed", "passed")
    )


def lines(folder: Path, name: str) -> list[str]:
    """What is to be said of one run."""
    found = cases(folder / f"{name}.xml")
    if not found:
        return [f"{name}: the test runner left no report, so what it skipped is not known"]
    reasons = collections.Counter(
        outcome.removeprefix("skipped: ") for outcome in found.values() if outcome.startswith("skipped")
    )
    said = [f"{name}: {len(found)} tests, {sum(reasons.values())} skipped"]
    said += [f"  {count} x {reason}" for reason, count in reasons.most_common()]
    return said + [f"  UNSTEADY, passed only when repeated: {test}" for test in unsteady(folder, name)]


def main() -> None:
    """Print it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count-unsteady", action="store_true", help="print only how many were unsteady")
    parser.add_argument("folder", type=Path)
    parser.add_argument("names", nargs="+", metavar="NAME")
    options = parser.parse_args()
    if options.count_unsteady:
        print(sum(len(unsteady(options.folder, name)) for name in options.names))
        return
    for name in options.names:
        print("\n".join(lines(options.folder, name)))


if __name__ == "__main__":
    main()
