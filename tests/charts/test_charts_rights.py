"""Rights of the chart's components: no wildcard, no write access to Secrets, restricted pods."""

import copy
import json
import subprocess
from typing import Any

import pytest
from charts_support import PROFILES, Kubectl, Object, Render

from marketfeed_operator.api import Spec, parse
from marketfeed_operator.desired.base import Defaults, Feed
from marketfeed_operator.desired.kafka_topic import kafka_topics
from marketfeed_operator.kinds import WATCHED, Kind
from marketfeed_operator.settings import OperatorSettings

pytest_plugins = ["charts_fixtures"]

INSTALLATIONS: dict[str, tuple[str, dict[str, Any]]] = {
    **{profile: (profile, {}) for profile in PROFILES},
    "default": ("", {}),
    "namespaced": ("", {"rbac": {"scope": "namespaced"}, "operator": {"watchNamespaces": ["a"]}}),
    "secrets watched": ("", {"operator": {"watchSecrets": ["market"]}}),
}
READING = {"get", "list", "watch"}


@pytest.fixture(scope="module", params=INSTALLATIONS)
def installation(request: pytest.FixtureRequest, render: Render) -> list[Object]:
    profile, values = INSTALLATIONS[request.param]
    return render(profile, **values)


def _rules(objects: list[Object]) -> list[Object]:
    found = [rule for body in objects if body["kind"] in {"Role", "ClusterRole"} for rule in body["rules"]]
    assert found
    return found


def test_rbac_has_no_wildcard(installation: list[Object]) -> None:
    assert "*" not in json.dumps(_rules(installation))


def test_rbac_grants_no_write_and_no_list_of_secrets(installation: list[Object]) -> None:
    verbs = {
        verb for rule in _rules(installation) if "secrets" in rule["resources"] for verb in rule["verbs"]
    }
    assert verbs <= {"get"}


def test_rbac_grants_secrets_only_where_they_are_watched(render: Render) -> None:
    assert not any("secrets" in rule["resources"] for rule in _rules(render()))


@pytest.mark.parametrize("kind", WATCHED, ids=lambda kind: kind.plural)
def test_rbac_of_the_operator_covers_each_kind_of_child_and_no_more(
    installation: list[Object], kind: Kind
) -> None:
    (verbs,) = {
        tuple(sorted(rule["verbs"]))
        for rule in _rules(installation)
        if kind.group in rule["apiGroups"] and kind.plural in rule["resources"]
    }
    assert set(verbs) == {*READING, "create", "patch", "delete"}


def test_rbac_allows_no_privilege_escalation(installation: list[Object]) -> None:
    for rule in _rules(installation):
        assert not {"escalate", "bind", "impersonate"} & set(rule["verbs"])
        if "rbac.authorization.k8s.io" in rule["apiGroups"]:
            assert set(rule["verbs"]) <= READING
        # The right to create pods, or to exec into them, includes the rights of their ServiceAccount.
        for resource in rule["resources"]:
            assert resource != "pods" or set(rule["verbs"]) <= READING
            assert not resource.startswith(("pods/", "serviceaccounts/", "nodes/"))


def test_rbac_of_a_namespaced_operator_has_no_cluster_rights(render: Render) -> None:
    objects = render(rbac={"scope": "namespaced"}, operator={"watchNamespaces": ["a"]})
    assert not {"ClusterRole", "ClusterRoleBinding"} & {body["kind"] for body in objects}


def test_token_is_mounted_for_the_operator_only(installation: list[Object]) -> None:
    for body in installation:
        if body["kind"] == "Deployment" and not body["metadata"]["name"].endswith("-operator"):
            assert body["spec"]["template"]["spec"]["automountServiceAccountToken"] is False


@pytest.mark.integration
class TestPodSecurity:
    """Admission by the API server itself, by the strictest of the Pod Security Standards."""

    @pytest.fixture
    def namespace(self, kubectl: Kubectl) -> str:
        labels = {"pod-security.kubernetes.io/enforce": "restricted"}
        body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "restricted", "labels": labels}}
        assert kubectl("apply", "-f", "-", stdin=json.dumps(body)).returncode == 0
        # Pod admission requires it, and its controller creates it a moment later.
        account = kubectl(
            "wait", "--for=create", "serviceaccount/default", "--namespace=restricted", "--timeout=60s"
        )
        assert account.returncode == 0, account.stderr
        return "restricted"

    def _admitted(self, kubectl: Kubectl, pod: Object, namespace: str) -> subprocess.CompletedProcess[str]:
        body = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "judged"}, "spec": pod}
        return kubectl(
            "create", "--dry-run=server", "--namespace", namespace, "-f", "-", stdin=json.dumps(body)
        )

    def test_pod_security_restricted_admits_every_pod_of_the_chart(
        self, kubectl: Kubectl, namespace: str, render: Render
    ) -> None:
        templates = [body["spec"]["template"] for body in render("local") if body["kind"] == "Deployment"]
        assert len(templates) == 2, "the operator and the simulator"
        for template in templates:
            pod = {**template["spec"], "serviceAccountName": "default"}
            done = self._admitted(kubectl, pod, namespace)
            assert done.returncode == 0, done.stderr

    def test_pod_security_restricted_rejects_a_pod_that_may_run_as_root(
        self, kubectl: Kubectl, namespace: str, render: Render
    ) -> None:
        (body,) = [body for body in render() if body["kind"] == "Deployment"]
        pod = copy.deepcopy(body["spec"]["template"]["spec"]) | {"serviceAccountName": "default"}
        del pod["securityContext"]["runAsNonRoot"]
        done = self._admitted(kubectl, pod, namespace)
        assert done.returncode != 0
        assert "violates PodSecurity" in done.stderr


def test_operator_pod_has_every_variable_of_the_operator(render: Render) -> None:
    (body,) = [body for body in render(rbac={"scope": "namespaced"}) if body["kind"] == "Deployment"]
    (container,) = body["spec"]["template"]["spec"]["containers"]
    given = {variable["name"] for variable in container["env"]}
    # In a cluster these have one valid value, which is their default.
    fixed = {"OPERATOR_NAMESPACE", "METRICS_HOST", "METRICS_PORT", "METRICS_PORT_FILE"}
    assert given | fixed == {name.upper() for name in OperatorSettings.model_fields}


def test_operator_settings_are_the_operators_defaults(
    render: Render, monkeypatch: pytest.MonkeyPatch
) -> None:
    (body,) = [body for body in render() if body["kind"] == "Deployment"]
    (container,) = body["spec"]["template"]["spec"]["containers"]
    given = {variable["name"]: variable.get("value", "") for variable in container["env"]}
    chosen = {"LOG_FORMAT", "OPERATOR_NAME"}
    taken = OperatorSettings.model_validate(
        {name.lower(): text for name, text in given.items() if name not in chosen}
    )
    assert taken == OperatorSettings.model_validate({})


def test_topic_resource_has_the_operators_name(render: Render) -> None:
    """Two resources of one topic would conflict; the operator does not change an existing one."""
    (body,) = [
        body
        for body in render("production", kafka={"topics": {"enabled": False}})
        if body["kind"] == "MarketFeed"
    ]
    spec = parse(body["spec"])
    assert isinstance(spec, Spec)
    feed = Feed("feeds", "x", "uid", 1, spec, Defaults("w", "c"))
    operator_topics = {child.name for child in kafka_topics(feed)}
    chart_topics = {body["metadata"]["name"] for body in render("production") if body["kind"] == "KafkaTopic"}
    assert chart_topics == operator_topics
