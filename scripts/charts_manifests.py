#!/usr/bin/env python3
"""Render manifests/operator from charts/marketfeed, and the chart's copy of the CRD from its Python types.

The manifests are for an installation without Helm: the chart with default values in the namespace marketfeed-system.
The executable helm is that of the charts' tests, built once with Go.
"""

import subprocess
import sys
from pathlib import Path
from typing import Final

import yaml
from charts_files import ROOT, write_or_compare

from marketfeed_devtools.programs import Unavailable
from marketfeed_operator.api.crd import to_yaml

sys.path.append(str(ROOT / "tests/charts"))

import charts_tools

CHART: Final = ROOT / "charts/marketfeed"
NAMESPACE: Final = "marketfeed-system"
HEAD: Final = (
    "# Rendered from charts/marketfeed by scripts/charts_manifests.py (make charts): do not edit.\n"
    "# The chart with its default values; the chart has options for all of it.\n"
)
FILES: Final = {
    "rbac.yaml": (
        "service-account", "cluster-role", "cluster-role-binding", "role", "role-binding", "user-roles",
    ),
    "deployment.yaml": ("deployment", "pod-disruption-budget", "network-policy"),
}  # fmt: skip
"""File of manifests/operator -> the chart's templates in it, in this order."""
_HELM_LABELS: Final = ("helm.sh/chart:", "app.kubernetes.io/managed-by:")


def manifests(helm: Path) -> dict[Path, str]:
    """Return path -> text of the files."""
    files = {
        ROOT / "manifests/operator" / name: HEAD + _rendered(helm, name, templates)
        for name, templates in FILES.items()
    }
    return {CHART / "files/crd.yaml": to_yaml(), ROOT / "manifests/crd.yaml": to_yaml(), **files}


def _rendered(helm: Path, name: str, templates: tuple[str, ...]) -> str:
    objects = [] if name != "rbac.yaml" else [_namespace()]
    for template in templates:
        command = [str(helm), "template", "marketfeed", str(CHART), "--namespace", NAMESPACE]
        shown = ["--show-only", f"templates/operator/{template}.yaml"]
        done = subprocess.run([*command, *shown], check=True, capture_output=True, text=True)  # noqa: S603 - no shell
        objects.append(done.stdout.removeprefix("---\n").rstrip() + "\n")
    lines = "---\n".join(objects).splitlines()
    # Without Helm's labels, which would mark the objects as managed by Helm.
    return "\n".join(line for line in lines if not line.strip().startswith(_HELM_LABELS)) + "\n"


def _namespace() -> str:
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE, "labels": labels}}
    return yaml.safe_dump(body, sort_keys=False)


def main() -> int:
    """Write the files, or list outdated ones."""
    try:
        return write_or_compare(__doc__, "charts", lambda: manifests(charts_tools.find_tools().helm))
    except Unavailable as reason:
        print(reason, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
