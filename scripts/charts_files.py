"""What scripts/charts_values.py and charts_manifests.py do alike: write generated files, or say which are old."""

import argparse
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[1]


def write_or_compare(doc: str | None, target: str, made: Callable[[], Mapping[Path, str]]) -> int:
    """A script's whole work; the exit code, 1 where files are only compared and one of them is old.

    Args:
        doc: what `--help` begins with.
        target: of make, by which the files are written.
        made: the files, and what is to stand in them.
    """
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="write them; without it they are compared only")
    write = parser.parse_args().write
    old = []
    for file, text in made().items():
        if write:
            file.write_text(text)
        elif not file.exists() or file.read_text() != text:
            old.append(file.relative_to(ROOT))
    for file in old:
        print(f"{file} is old: make {target}", file=sys.stderr)
    return 1 if old else 0
