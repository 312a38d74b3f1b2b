#!/usr/bin/env python3
"""Summary of the test runner's reports: skipped tests by reason, and tests that passed only in the repetition.

    report.py [--count-unsteady] FOLDER NAME...

NAME.xml in FOLDER is the report of a run, NAME.again.xml the report of the repetition of its failed tests.
"""

import argparse
import collections
from pathlib import Path
from xml.etree import ElementTree


def cases(file: Path) -> dict[str, str]:
    """Return test -> "passed", "failed" or "skipped: REASON"; empty without a report."""
    if not file.exists() or not file.stat().st_size:
        return {}
    found: dict[str, str] = {}
    for case in ElementTree.parse(file).iter("testcase"):  # noqa: S314 - written by the local test runner
        name = f"{case.get('classname', '')}::{case.get('name', '')}"
        skipped = case.find("skipped")
        if case.find("failure") is not None or case.find("error") is not None:
            found[name] = "failed"
        elif skipped is not None:
            found.setdefault(name, f"skipped: {skipped.get('message', '')}")
        else:
            found.setdefault(name, "passed")  # an error of its teardown is a separate case
    return found


def unsteady(folder: Path, name: str) -> list[str]:
    """Return tests that failed in the run and passed in the repetition."""
    repeated = cases(folder / f"{name}.again.xml")
    first = cases(folder / f"{name}.xml")
    return sorted(
        test for test, outcome in first.items() if (outcome, repeated.get(test)) == ("failed", "passed")
    )


def lines(folder: Path, name: str) -> list[str]:
    """Return the lines about a run."""
    found = cases(folder / f"{name}.xml")
    if not found:
        return [f"{name}: no report of the test runner, so skipped tests are unknown"]
    reasons = collections.Counter(
        outcome.removeprefix("skipped: ") for outcome in found.values() if outcome.startswith("skipped")
    )
    output = [f"{name}: {len(found)} tests, {sum(reasons.values())} skipped"]
    output += [f"  {count} x {reason}" for reason, count in reasons.most_common()]
    return output + [f"  UNSTEADY, passed only in the repetition: {test}" for test in unsteady(folder, name)]


def main() -> None:
    """Print the summary."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--count-unsteady", action="store_true", help="print only the number of unsteady tests"
    )
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
