"""helm, helm-unittest and kubeconform, built once from pinned Go modules into the cache.

The cache is MARKETFEED_CACHE, by default ~/.cache/marketfeed; a folder of it belongs to one set of versions.
"""

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

HERE: Final = Path(__file__).parent
HELM: Final = "v4.2.4"
KUBECONFORM: Final = "v0.8.0"
HELM_UNITTEST: Final = "v1.1.2"
"""Runs its suites on the engine of Helm 3, so that both majors render the charts in the tests. Also in tools/."""


class Unavailable(Exception):
    """The programs cannot be had on this machine; says what is missing."""


@dataclass(frozen=True)
class Tools:
    """The folder of the programs, and each of them."""

    folder: Path

    @property
    def helm(self) -> Path:
        """Helm 4."""
        return self.folder / "helm"

    @property
    def kubeconform(self) -> Path:
        """Compares manifests with JSON schemas."""
        return self.folder / "kubeconform"

    @property
    def helm_unittest(self) -> Path:
        """Runs the suites in charts/*/tests."""
        return self.folder / "helm-unittest"


def find_tools() -> Tools:
    """The programs, built first if need be: about five minutes on two cores.

    Raises:
        Unavailable: Go is not installed.
        subprocess.CalledProcessError: a build failed.
    """
    cache = Path(os.environ.get("MARKETFEED_CACHE") or Path.home() / ".cache" / "marketfeed")
    tools = Tools(cache / "charts" / f"helm-{HELM}-unittest-{HELM_UNITTEST}-kubeconform-{KUBECONFORM}")
    if not all(program.exists() for program in (tools.helm, tools.kubeconform, tools.helm_unittest)):
        _build(tools.folder)
    return tools


def _build(folder: Path) -> None:
    if shutil.which("go") is None:
        raise Unavailable("Go is not installed: it builds helm, helm-unittest and kubeconform")
    print(f"building helm, helm-unittest and kubeconform once into {folder} (about five minutes)", flush=True)
    building = folder.with_name(f".{folder.name}.{os.getpid()}")
    building.mkdir(parents=True)
    environment = {**os.environ, "CGO_ENABLED": "0", "GOFLAGS": "-buildvcs=false", "GOBIN": str(building)}
    flags = ["-trimpath", "-ldflags", "-s -w"]
    unittest = "github.com/helm-unittest/helm-unittest/cmd/helm-unittest"
    try:
        for where, command in (
            (HERE, ["install", *flags, f"github.com/yannh/kubeconform/cmd/kubeconform@{KUBECONFORM}"]),
            (HERE, ["install", *flags, f"helm.sh/helm/v4/cmd/helm@{HELM}"]),
            (HERE / "tools" / "helm-unittest", ["build", *flags, "-o", f"{building}/", unittest]),
        ):
            subprocess.run(["go", *command], cwd=where, env=environment, check=True)
        # Whoever else built the same meanwhile made the same files.
        shutil.rmtree(folder, ignore_errors=True)
        building.rename(folder)
    finally:
        shutil.rmtree(building, ignore_errors=True)
