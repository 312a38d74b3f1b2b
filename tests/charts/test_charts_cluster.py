"""The chart on a real API server: installed, upgraded, rolled back, uninstalled; its objects accepted or rejected."""

import json
import uuid
from collections.abc import Callable, Iterator

import pytest
from charts_support import CHART, ControlPlane, Helm, Kubectl, Object, Render

pytest_plugins = ["charts_fixtures"]

pytestmark = pytest.mark.integration

Release = Callable[..., str]

RELEASE_BYTES = 1_048_576
"""Maximum size of a Secret, and so of a release."""


@pytest.fixture
def namespace(kubectl: Kubectl) -> Iterator[str]:
    name = f"charts-{uuid.uuid4().hex[:8]}"
    assert kubectl("create", "namespace", name).returncode == 0
    yield name
    kubectl("delete", "namespace", name, "--wait=false")


@pytest.fixture
def release(helm: Helm, api_server: ControlPlane, kubectl: Kubectl, namespace: str) -> Iterator[Release]:
    """Return a function that runs helm for a release; the release and its CRD are removed at the end."""

    def run(command: str, *arguments: object, fails: bool = False) -> str:
        done = helm(
            *command.split(), *arguments, "--namespace", namespace, KUBECONFIG=str(api_server.kubeconfig)
        )
        assert (done.returncode != 0) == fails, done.stderr + done.stdout
        return done.stderr if fails else done.stdout

    yield run
    helm("uninstall", "marketfeed", "--namespace", namespace, KUBECONFIG=str(api_server.kubeconfig))
    kubectl("delete", "crd", "marketfeeds.marketfeed.dev", "--ignore-not-found")


def _get(kubectl: Kubectl, namespace: str, *what: str) -> Object:
    done = kubectl("get", *what, "--namespace", namespace, "--output=json")
    assert done.returncode == 0, done.stderr
    found: Object = json.loads(done.stdout)
    return found


def test_release_installs_upgrades_rolls_back_and_uninstalls(
    release: Release, kubectl: Kubectl, namespace: str, platform: None
) -> None:
    release("install marketfeed", CHART)
    operator = ("deployment", "marketfeed-operator")
    assert _get(kubectl, namespace, *operator)["spec"]["replicas"] == 2
    assert len(_get(kubectl, namespace, "configmaps", "-l", "grafana_dashboard=1")["items"]) == 4
    assert _get(kubectl, namespace, "podmonitor", "marketfeed-operator")

    release("upgrade marketfeed", CHART, "--set", "operator.replicas=3", "--set", "operator.logLevel=DEBUG")
    assert _get(kubectl, namespace, *operator)["spec"]["replicas"] == 3
    assert "DEBUG" in json.dumps(_get(kubectl, namespace, *operator))

    release("rollback marketfeed", "1")
    assert _get(kubectl, namespace, *operator)["spec"]["replicas"] == 2
    assert "DEBUG" not in json.dumps(_get(kubectl, namespace, *operator))

    release("uninstall marketfeed")
    listed = "deployments,poddisruptionbudgets,networkpolicies,roles,rolebindings,podmonitors,prometheusrules,secrets"
    gone = kubectl("wait", "--for=delete", listed, "--all", "--namespace", namespace, "--timeout=60s")
    assert gone.returncode == 0, gone.stderr
    assert (
        _get(
            kubectl,
            namespace,
            "clusterroles,clusterrolebindings",
            "-l",
            "app.kubernetes.io/part-of=marketfeed",
        )["items"]
        == []
    )
    # Kept on purpose: the CRD, and with it every feed.
    assert _get(kubectl, namespace, "crd", "marketfeeds.marketfeed.dev")


def test_release_adopts_what_the_previous_one_kept(
    release: Release, kubectl: Kubectl, namespace: str, platform: None
) -> None:
    release("install marketfeed", CHART)
    release("uninstall marketfeed")
    release("install marketfeed", CHART)
    assert _get(kubectl, namespace, "deployment", "marketfeed-operator")


@pytest.mark.parametrize("profile", ["local", "production"])
def test_profile_is_accepted_with_its_feed_by_the_second_run(
    release: Release, kubectl: Kubectl, namespace: str, platform: None, profile: str
) -> None:
    run = ("upgrade --install marketfeed", CHART, "--values", CHART / f"values-{profile}.yaml")
    without = ("--set", "cockroachdb.tls.certManager.enabled=false")
    said = release(*run, *without)
    assert "Run the same helm upgrade --install once more" in said
    assert kubectl("wait", "--for=condition=Established", "crd/marketfeeds.marketfeed.dev").returncode == 0
    said = release(*run, *without)
    assert "kubectl -n " in said
    feeds = _get(kubectl, namespace, "marketfeeds")["items"]
    assert [feed["metadata"]["name"] for feed in feeds] == ["first" if profile == "local" else "binance-us"]
    assert len(_get(kubectl, namespace, "kafkatopics.kafka.strimzi.io")["items"]) == 5
    assert len(_get(kubectl, namespace, "kafkausers.kafka.strimzi.io")["items"]) == (
        0 if profile == "local" else 4
    )
    (newest,) = _get(kubectl, namespace, "secrets", "-l", "owner=helm,status=deployed")["items"]
    assert sum(map(len, newest["data"].values())) < RELEASE_BYTES / 2, (
        "a release takes half of a Secret's maximum size"
    )


def test_uninstall_keeps_data_of_production_and_only_the_crd_of_local(
    release: Release, kubectl: Kubectl, namespace: str, platform: None
) -> None:
    kinds = (
        "kafkas.kafka.strimzi.io,kafkanodepools.kafka.strimzi.io,kafkatopics.kafka.strimzi.io,crdbclusters"
    )
    for profile, kept in (
        ("production", {"Kafka", "KafkaNodePool", "KafkaTopic", "CrdbCluster"}),
        ("local", set()),
    ):
        values = (
            "--values",
            CHART / f"values-{profile}.yaml",
            "--set",
            "cockroachdb.tls.certManager.enabled=false",
        )
        release("install marketfeed", CHART, *values)
        release("uninstall marketfeed", "--wait")
        assert {body["kind"] for body in _get(kubectl, namespace, kinds)["items"]} == kept
        kubectl("delete", kinds, "--all", "--namespace", namespace)
        kubectl("delete", "serviceaccount", "marketfeed-db", "--namespace", namespace)


def test_rbac_of_a_namespaced_operator_is_limited_to_its_namespaces(
    release: Release, kubectl: Kubectl, namespace: str, platform: None
) -> None:
    release("install marketfeed", CHART, "--set", "rbac.scope=namespaced")
    who = f"--as=system:serviceaccount:{namespace}:marketfeed-operator"

    def may(*what: str) -> bool:
        return kubectl("auth", "can-i", who, *what).stdout.strip() == "yes"

    assert may("patch", "deployments.apps", "--namespace", namespace)
    assert may("update", "leases.coordination.k8s.io/marketfeed-operator", "--namespace", namespace)
    assert not may("patch", "deployments.apps", "--namespace", "default")
    assert not may("get", "secrets", "--namespace", namespace)
    assert not may("list", "marketfeeds.marketfeed.dev", "--all-namespaces")


def test_feed_that_violates_the_crds_rules_is_rejected_by_the_api_server(
    release: Release, kubectl: Kubectl, namespace: str, platform: None, render: Render
) -> None:
    release("install marketfeed", CHART)
    (feed,) = [body for body in render("local") if body["kind"] == "MarketFeed"]
    feed["metadata"]["namespace"] = namespace

    def declare(**spec: object) -> str:
        body = {**feed, "spec": {**feed["spec"], **spec}}
        return str(kubectl("create", "--dry-run=server", "-f", "-", stdin=json.dumps(body)).stderr)

    assert declare() == ""
    assert "give exactly one of symbols and symbolSelector" in declare(
        symbolSelector={"quoteAssets": ["USDT"]}
    )
    assert "shardSize" in declare(shardSize=0)
