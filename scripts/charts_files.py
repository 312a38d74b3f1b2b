"""Shared by scripts/charts_values.py and charts_manifests.py: write generated files, or list outdated ones."""

import argparse
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[1]


def write_or_compare(doc: str | None, target: str, made: Callable[[], Mapping[Path, str]]) -> int:
    """Run a script; return the exit code, 1 if files are only compared and one is outdated.

    Args:
        doc: Text of `--help`.
        target: Target of make that writes the files.
        made: Returns path -> text of the files.
    """
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="write the files [only compare them]")
    write = parser.parse_args().write
    outdated = []
    for file, text in made().items():
        if write:
            file.write_text(text)
        elif not file.exists() or file.read_text() != text:
            outdated.append(file.relative_to(ROOT))
    for file in outdated:
        print(f"{file} is outdated: run make {target}", file=sys.stderr)
    return 1 if outdated else 0
