"""Docker: whether an engine answers, and images built of what is on this machine alone."""

import functools
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

from marketfeed_devtools.programs import Unavailable, require, run


def client() -> str:
    """A Docker client that an engine answers.

    Raises:
        Unavailable: there is none, or no engine answers it.
    """
    found = require("docker", "images and clusters are made by it (Debian: docker.io)")
    _version(found)
    return found


@functools.cache
def builder() -> str:
    """A Docker client that can build with BuildKit: one without buildx cannot, from version 23 on.

    Raises:
        Unavailable: there is none, or no engine answers it.
    """
    others = (path for path in ("/usr/bin/docker", "/usr/local/bin/docker") if Path(path).exists())
    for candidate in (client(), *others):
        if _version(candidate) < 23 or _asked(candidate, "buildx", "version").returncode == 0:
            return candidate
    raise Unavailable("this Docker client cannot build: install its buildx plugin")


def build(
    reference: str,
    context: Path,
    *,
    labels: Mapping[str, str] | None = None,
    arguments: Mapping[str, str] | None = None,
) -> None:
    """Make the image `reference` of the Dockerfile in `context`; nothing is pulled and nothing is fetched.

    Raises:
        Unavailable: as `builder`.
        CommandFailed: Docker refused; with the end of its words.
    """
    given = [
        word
        for option, values in (("--label", labels), ("--build-arg", arguments))
        for name, value in (values or {}).items()
        for word in (option, f"{name}={value}")
    ]
    run(
        [builder(), "build", "--pull=false", "--network=none", "--tag", reference, *given, context],
        env={**os.environ, "DOCKER_BUILDKIT": "1"},
    )


def has_image(reference: str) -> bool:
    """Whether the engine has the image."""
    return _asked(client(), "image", "inspect", reference).returncode == 0


def label_of(reference: str, label: str) -> str:
    """An image's label; "" where the image or the label is not there."""
    shown = f'{{{{index .Config.Labels "{label}"}}}}'
    asked = _asked(client(), "image", "inspect", "--format", shown, reference)
    return asked.stdout.strip() if asked.returncode == 0 else ""


def _version(found: str) -> int:
    asked = _asked(found, "version", "--format", "{{.Client.Version}}")
    if asked.returncode:
        raise Unavailable(f"no Docker engine answers: {asked.stderr.strip()[-300:]}")
    return int(asked.stdout.split(".")[0])


def _asked(found: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [found, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - no shell
