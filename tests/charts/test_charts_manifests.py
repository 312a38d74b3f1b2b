"""manifests/ equals the chart's rendering, and its examples are valid MarketFeeds of chart and CRD."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from charts_support import ROOT, Object, Render, charts_manifests
from charts_tools import Tools

from marketfeed_operator.api import Spec, parse

pytest_plugins = ["charts_fixtures"]

EXAMPLES = sorted((ROOT / "manifests/examples").glob("*.yaml"))


def test_manifests_are_those_of_the_chart(tools: Tools) -> None:
    for file, text in charts_manifests.manifests(tools.helm).items():
        assert file.read_text() == text, f"{file.relative_to(ROOT)} is outdated: run make charts"


def test_manifests_include_every_object_of_the_operator(render: Render) -> None:
    def key(body: Object) -> tuple[str, str]:
        return body["kind"], body["metadata"]["name"]

    files = [
        ROOT / "manifests/crd.yaml",
        *(ROOT / "manifests/operator" / name for name in charts_manifests.FILES),
    ]
    shown = {key(body) for file in files for body in yaml.safe_load_all(file.read_text()) if body}
    chart = {key(body) for body in render(kinds=(), dashboards={"enabled": False})}
    assert shown - chart == {("Namespace", charts_manifests.NAMESPACE)}
    assert chart - shown == set()


def test_manifests_script_names_outdated_files(tools: Tools) -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "scripts/charts_manifests.py"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.stem)
def test_example_is_a_feed_that_the_operator_accepts(file: Path) -> None:
    (body,) = yaml.safe_load_all(file.read_text())
    assert isinstance(parse(body["spec"]), Spec), parse(body["spec"])


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.stem)
def test_example_equals_the_charts_rendering_of_its_spec(render: Render, file: Path) -> None:
    (body,) = yaml.safe_load_all(file.read_text())
    feed = {"enabled": True, "name": body["metadata"]["name"], "spec": body["spec"]}
    (made,) = [made for made in render(feed=feed) if made["kind"] == "MarketFeed"]
    assert made["spec"].pop("monitoring", {}).items() >= body["spec"].pop("monitoring", {}).items()
    assert made["spec"] == body["spec"]


@pytest.mark.parametrize("profile", ["local", "production"])
def test_profile_has_a_feed_that_the_operator_accepts(render: Render, profile: str) -> None:
    (body,) = [body for body in render(profile) if body["kind"] == "MarketFeed"]
    assert isinstance(parse(body["spec"]), Spec), parse(body["spec"])
