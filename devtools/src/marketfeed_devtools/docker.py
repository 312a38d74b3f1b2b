"""Docker: a client with a running engine, and image builds without network access."""

import functools
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

from marketfeed_devtools.programs import Unavailable, require, run


def client() -> str:
    """Return a Docker client with a running engine.

    Raises:
        Unavailable: there is no client, or no engine responds.
    """
    found = require("docker", "images and clusters are made by it (Debian: docker.io)")
    _version(found)
    return found


@functools.cache
def builder() -> str:
    """Return a Docker client that can build with BuildKit: from version 23 on that requires buildx.

    Raises:
        Unavailable: there is no such client, or no engine responds.
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
    """Build the image `reference` from the Dockerfile in `context`, without pulling images and without network.

    Args:
        reference: name and tag of the image.
        context: folder with the Dockerfile.
        labels: labels of the image.
        arguments: build arguments.

    Raises:
        Unavailable: as `builder`.
        CommandFailed: the build failed; has the end of Docker's output.
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
    """Return whether the engine has the image."""
    return _asked(client(), "image", "inspect", reference).returncode == 0


def label_of(reference: str, label: str) -> str:
    """Return an image's label; "" if the image or the label does not exist."""
    shown = f'{{{{index .Config.Labels "{label}"}}}}'
    asked = _asked(client(), "image", "inspect", "--format", shown, reference)
    return asked.stdout.strip() if asked.returncode == 0 else ""


def _version(found: str) -> int:
    asked = _asked(found, "version", "--format", "{{.Client.Version}}")
    if asked.returncode:
        raise Unavailable(f"no Docker engine responds: {asked.stderr.strip()[-300:]}")
    return int(asked.stdout.split(".")[0])


def _asked(found: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [found, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - no shell
