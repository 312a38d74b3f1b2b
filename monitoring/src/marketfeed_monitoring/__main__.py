"""`marketfeed-monitoring`: writes what is generated, or checks that it is written."""

import argparse
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="marketfeed-monitoring", description=__doc__)
    parser.parse_args(arguments)


if __name__ == "__main__":
    main()
