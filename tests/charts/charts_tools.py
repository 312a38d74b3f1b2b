"""helm, helm-unittest and kubeconform, built once from a pinned Go module into a folder of the cache."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from marketfeed_devtools import cache, go
from marketfeed_devtools.go import Program
from marketfeed_devtools.programs import say

_MODULE: Final = Path(__file__).parents[1] / "e2e" / "kind" / "modules" / "clients"
_HELM: Final = "helm.sh/helm/v4"
_KUBECONFORM: Final = "github.com/yannh/kubeconform"
_UNITTEST: Final = "github.com/helm-unittest/helm-unittest"
HELM: Final = go.pinned(_MODULE, _HELM)
KUBECONFORM: Final = go.pinned(_MODULE, _KUBECONFORM)
HELM_UNITTEST: Final = go.pinned(_MODULE, _UNITTEST)
"""Version of helm-unittest, which uses the engine of Helm 3, so that both majors render the charts in the tests."""
PROGRAMS: Final = (
    Program("kubeconform", f"{_KUBECONFORM}/cmd/kubeconform", _MODULE),
    Program("helm", f"{_HELM}/cmd/helm", _MODULE),
    Program("helm-unittest", f"{_UNITTEST}/cmd/helm-unittest", _MODULE),
)


@dataclass(frozen=True)
class Tools:
    """The programs and their folder."""

    folder: Path

    @property
    def helm(self) -> Path:
        """Path of Helm 4."""
        return self.folder / "helm"

    @property
    def kubeconform(self) -> Path:
        """Path of kubeconform, which validates manifests by JSON schemas."""
        return self.folder / "kubeconform"

    @property
    def helm_unittest(self) -> Path:
        """Path of helm-unittest, which runs the suites in charts/*/tests."""
        return self.folder / "helm-unittest"


def find_tools() -> Tools:
    """Return the programs, built on the first call: about five minutes on two cores.

    Raises:
        Unavailable: Go is not installed.
        CommandFailed: a build failed.
    """
    name = f"charts/helm-{HELM}-unittest-{HELM_UNITTEST}-kubeconform-{KUBECONFORM}"
    return Tools(cache.once(name, _gather, [program.name for program in PROGRAMS]))


def _gather(folder: Path) -> None:
    say("building helm, helm-unittest and kubeconform once (about five minutes)")
    for program in PROGRAMS:
        shutil.copy2(go.built(program), folder)
