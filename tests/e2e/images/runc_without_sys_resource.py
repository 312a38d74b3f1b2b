#!/usr/bin/env python3
"""An OCI runtime for machines whose own capabilities lack CAP_SYS_RESOURCE: runc without that capability.

Docker requests every capability for a privileged container, and runc ends with "unable to apply caps:
operation not permitted" where one of them is unavailable. So this program removes it from Docker's configuration and
then executes runc.
"""

import json
import os
import shutil
import sys
from pathlib import Path

MISSING = "CAP_SYS_RESOURCE"


def without(capabilities: dict[str, list[str] | None]) -> None:
    """Remove the capability from every set."""
    for name, members in capabilities.items():
        if members is not None:
            capabilities[name] = [member for member in members if member != MISSING]


def edit(file: Path, *, is_container: bool) -> None:
    """Rewrite a container's config.json, or the process of an exec."""
    if not file.is_file():
        return
    document = json.loads(file.read_text())
    without((document["process"] if is_container else document).get("capabilities") or {})
    file.write_text(json.dumps(document))


def value_of(option: str, short: str, arguments: list[str]) -> str | None:
    """Return the value of an option, given as two words or as one with an equals sign."""
    for position, argument in enumerate(arguments):
        if argument in (option, short) and position + 1 < len(arguments):
            return arguments[position + 1]
        if argument.startswith(f"{option}="):
            return argument.partition("=")[2]
    return None


def main(arguments: list[str]) -> None:
    """Edit the files named by the arguments, then execute runc."""
    if {"create", "run"} & set(arguments) and (bundle := value_of("--bundle", "-b", arguments)):
        edit(Path(bundle) / "config.json", is_container=True)
    if "exec" in arguments and (process := value_of("--process", "-p", arguments)):
        edit(Path(process), is_container=False)
    runc = shutil.which("runc", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/bin:/sbin")
    if runc is None:
        sys.exit("runc is not installed (Debian: runc)")
    os.execv(runc, [runc, *arguments])  # noqa: S606 - the point of this program


if __name__ == "__main__":
    main(sys.argv[1:])
