#!/usr/bin/env python3
"""manifests/operator, rendered from charts/marketfeed, and the chart's copy of the CRD from its Python types.

The manifests are for those who install without Helm: the chart with its default values, in the namespace
marketfeed-system. helm is the one the charts' tests use, built once by Go.
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
"""File of manifests/operator -> the templates of the chart that it shows, in this order."""
_HELMS_OWN: Final = ("helm.sh/chart:", "app.kubernetes.io/managed-by:")


def manifests(helm: Path) -> dict[Path, str]:
    """The files, and what is to stand in them."""
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
    # Labels by which Helm knows its own would tell it wrongly that these are.
    return "\n".join(line for line in lines if not line.strip().startswith(_HELMS_OWN)) + "\n"


def _namespace() -> str:
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE, "labels": labels}}
    return yaml.safe_dump(body, sort_keys=False)


def main() -> int:
    """Write the files, or say which are not as they should be."""
    try:
        return write_or_compare(__doc__, "charts", lambda: manifests(charts_tools.find_tools().helm))
    except Unavailable as reason:
        print(reason, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
