"""Java libraries by Maven: the dependencies of a pom, downloaded once into the cache."""

import hashlib
from pathlib import Path

from marketfeed_devtools import cache
from marketfeed_devtools.programs import require, run, say


def jars(pom: Path, name: str) -> Path:
    """Return the folder with the jars of the runtime dependencies of `pom`.

    Args:
        pom: the file.
        name: name of the folder in the cache, before its digest.

    Raises:
        Unavailable: Maven is not installed.
        CommandFailed: Maven failed; has the end of its output.
    """

    def make(folder: Path) -> None:
        mvn = require("mvn", f"fetches {name} (Debian: maven)")
        say(f"fetching {name} by Maven, once")
        run(
            [mvn, "-q", "-B", "-f", pom, "dependency:copy-dependencies", f"-DoutputDirectory={folder / 'jars'}",
             "-DincludeScope=runtime"]
        )  # fmt: skip

    key = hashlib.sha256(pom.read_bytes()).hexdigest()[:12]
    return cache.once(f"{name}-{key}", make, ("jars", cache.COMPLETE)) / "jars"
