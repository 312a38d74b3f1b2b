"""Paths, types and scripts that the charts' tests share."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).parents[2]
sys.path += [str(ROOT / "operator/tests"), str(ROOT / "scripts")]

import charts_cluster  # noqa: E402 - found through the lines above, as the next
import charts_manifests  # noqa: E402
import charts_tools  # noqa: E402
import charts_values  # noqa: E402
from operator_control_plane import ControlPlane, control_plane  # noqa: E402

CHART: Final = ROOT / "charts/marketfeed"
NEIGHBOURS: Final = ROOT.parent / "shared/crds"
"""CRDs of Strimzi, CockroachDB and the Prometheus operator; external data, not part of the repository."""
PROFILES: Final = ("local", "production", "existing")
KINDS: Final = ("marketfeed.dev/v1alpha1/MarketFeed", "monitoring.coreos.com/v1/PodMonitor")
"""API versions of a cluster that supports the whole chart."""

__all__ = [
    "ControlPlane",
    "charts_cluster",
    "charts_manifests",
    "charts_tools",
    "charts_values",
    "control_plane",
]
"""The scripts under test: imported here, where their folder is on the path."""

Object = dict[str, Any]
Render = Callable[..., list[Object]]
Helm = Callable[..., subprocess.CompletedProcess[str]]
Kubectl = Callable[..., subprocess.CompletedProcess[str]]
