"""A feed reports the conditions, events and pods of its workloads; on the API server, with its controllers."""

import json
from typing import Any

import pytest
from operator_support import Admin, eventually

from marketfeed_operator.kinds import CRON_JOB, DEPLOYMENT, JOB, POD, Kind
from marketfeed_operator.trouble import pod_trouble, refusal

STORAGE = {"engine": "postgresql", "dsnSecretName": "database"}
QUOTA = Kind("v1", "ResourceQuota", "resourcequotas")
LIMITS = Kind("v1", "LimitRange", "limitranges")


@pytest.fixture(scope="module")
def operator(start_operator, pod_port):
    return start_operator(POD_METRICS_PORT=str(pod_port), RESYNC_SECONDS="1")


async def make(admin: Admin, kind: Kind, name: str, **body: Any) -> None:
    await admin.cluster.apply(
        kind,
        {
            "apiVersion": kind.api_version, "kind": kind.kind,
            "metadata": {"name": name, "namespace": admin.namespace}, **body,
        },
        manager="tests",
    )  # fmt: skip


async def no_pods(admin: Admin) -> None:
    await make(admin, QUOTA, "pods", spec={"hard": {"pods": "0"}})


async def small_containers(admin: Admin) -> None:
    await make(admin, LIMITS, "small", spec={"limits": [{"type": "Container", "max": {"memory": "64Mi"}}]})


async def nothing(_: Admin) -> None:
    return None


async def first_pod(admin: Admin, component: str) -> dict[str, Any]:
    async def found():
        pods = await admin.cluster.list_all(POD, admin.namespace, f"app.kubernetes.io/component={component}")
        return pods[0] if pods else None

    return await eventually(found)


def pod_status(component: str, **status: Any):
    async def change(admin: Admin) -> None:
        pod = await first_pod(admin, component)
        path = POD.path(admin.namespace, pod["metadata"]["name"])
        await admin.cluster.merge(f"{path}/status", {"status": status})

    return change


def container(**state: Any) -> list[dict[str, Any]]:
    return [{"name": "worker", "image": "w", "imageID": "x", "ready": False, "restartCount": 7, **state}]


async def rollout_paused(admin: Admin) -> None:
    path = DEPLOYMENT.path(admin.namespace, "troubled-shard-0")
    await eventually(lambda: admin.get("Deployment", "troubled-shard-0"))
    await admin.cluster.merge(path, {"spec": {"paused": True}})


async def out_of_time(admin: Admin) -> None:
    """As the Deployment controller reports after 600 s, which is too long for a test."""
    path = DEPLOYMENT.path(admin.namespace, "troubled-shard-0")
    await eventually(lambda: admin.get("Deployment", "troubled-shard-0"))
    await rollout_paused(admin)  # so that the controller leaves the condition as it is
    found = await admin.cluster.get(path)
    conditions = [each for each in found["status"].get("conditions", []) if each["type"] != "Progressing"]
    late = {
        "type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded",
        "message": 'ReplicaSet "x" has timed out progressing.',
    }  # fmt: skip
    await admin.cluster.merge(f"{path}/status", {"status": {"conditions": [*conditions, late]}})


TABLE = {
    "quota": (no_pods, {}, "QuotaExceeded", "exceeded quota: pods"),
    "quota of consumers and the migration": (no_pods, {"storage": STORAGE}, "QuotaExceeded", "and 1 more "
    "workloads"),
    "limit range": (small_containers, {}, "LimitRangeRefused", "maximum memory usage per Container is 64Mi"),
    "priority class": (
        nothing, {"template": {"priorityClassName": "absent"}}, "PriorityClassRefused",
        "no PriorityClass with name absent",
    ),
    "service account": (nothing, {"serviceAccount": {"name": "absent"}}, "ServiceAccountMissing", '"absent" not found'),
    "rollout paused": (rollout_paused, {}, "RolloutPaused", "kubectl rollout resume"),
    "progress deadline": (out_of_time, {}, "ProgressDeadlineExceeded", "has timed out progressing"),
    "image pull": (
        pod_status(
            "ingestion", phase="Pending",
            containerStatuses=container(state={"waiting": {"reason": "ImagePullBackOff", "message": "no "
            "such image"}}),
        ),
        {}, "PodsFailing", "ImagePullBackOff: no such image",
    ),
    "out of memory": (
        pod_status(
            "ingestion", phase="Running",
            containerStatuses=container(
                state={"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 5m0s"}},
                lastState={"terminated": {"exitCode": 137, "reason": "OOMKilled"}},
            ),
        ),
        {}, "PodsFailing", "OOMKilled",
    ),
    "evicted": (
        pod_status("ingestion", phase="Failed", reason="Evicted", message="The node was low on resource: "
        "memory."),
        {}, "PodsFailing", "Evicted: The node was low on resource",
    ),
    "unschedulable": (
        pod_status(
            "ingestion", phase="Pending",
            conditions=[{
                "type": "PodScheduled", "status": "False", "reason": "Unschedulable",
                "message": "0/3 nodes are available",
            }],
        ),
        {}, "PodsFailing", "not scheduled: 0/3 nodes are available",
    ),
    "secret missing": (
        pod_status(
            "ingestion", phase="Pending",
            containerStatuses=container(
                state={"waiting": {"reason": "CreateContainerConfigError", "message": 'secret "database" not found'}}
            ),
        ),
        {}, "PodsFailing", 'CreateContainerConfigError: secret "database" not found',
    ),
}  # fmt: skip


@pytest.mark.integration
@pytest.mark.parametrize("case", TABLE)
async def test_degraded_has_reason_and_message_of_kubernetes(admin: Admin, operator, case):
    change, spec, reason, said = TABLE[case]
    if change in (no_pods, small_containers):
        await change(admin)
    await admin.feed("troubled", symbols=["AA"], **spec)
    if change not in (no_pods, small_containers):
        await change(admin)

    async def reported():
        found = await admin.condition("troubled", "Degraded")
        assert found["reason"] == reason, found
        assert said in found["message"], found
        return found

    assert (await eventually(reported))["status"] == "True"
    assert (await admin.condition("troubled", "Ready"))["status"] == "False"


@pytest.mark.integration
async def test_degraded_ends_when_the_quota_is_raised(admin: Admin, operator):
    await no_pods(admin)
    await admin.feed("raised", symbols=["AA"], storage=STORAGE)

    async def reason(expected: str):
        async def reported():
            found = await admin.condition("raised", "Degraded")
            assert found["reason"] == expected, found
            return found

        await eventually(reported)

    await reason("QuotaExceeded")
    await make(admin, QUOTA, "pods", spec={"hard": {"pods": "50"}})
    await reason("AsExpected")


@pytest.mark.integration
async def test_degraded_reports_refused_pods_of_a_retention_run(admin: Admin, operator, nodes):
    """A Job of the feed's CronJob, as kubectl create job --from creates it."""
    await admin.feed("runs", symbols=["AA"], storage={**STORAGE, "retention": {"tradesDays": 7}})

    async def ready():
        return (await admin.condition("runs", "Ready"))["status"] == "True"

    await eventually(ready)
    await no_pods(admin)
    cron = await admin.get("CronJob", "runs-retain")
    assert cron is not None
    owner = {
        "apiVersion": "batch/v1",
        "kind": "CronJob",
        "name": "runs-retain",
        "uid": cron["metadata"]["uid"],
    }
    template = cron["spec"]["jobTemplate"]
    job = {
        "apiVersion": JOB.api_version, "kind": JOB.kind,
        "metadata": {
            "name": "by-hand", "namespace": admin.namespace, "labels": template["metadata"]["labels"],
            "ownerReferences": [{**owner, "controller": True}],
        },
        "spec": template["spec"],
    }  # fmt: skip
    await admin.cluster._request("post", JOB.path(admin.namespace), body=job)

    async def reported():
        found = await admin.condition("runs", "Degraded")
        assert found["reason"] == "QuotaExceeded", found
        return found

    assert (await eventually(reported))["message"].startswith("Job by-hand: ")


@pytest.mark.integration
async def test_degraded_reports_a_suspended_retention(admin: Admin, nodes, operator):
    await admin.feed("suspended", symbols=["AA"], storage={**STORAGE, "retention": {"tradesDays": 7}})
    await eventually(lambda: admin.get("CronJob", "suspended-retain"))

    async def resumed():
        found = await admin.get("CronJob", "suspended-retain")
        return found is not None and not found["spec"].get("suspend")

    await eventually(resumed)
    await admin.cluster.merge(CRON_JOB.path(admin.namespace, "suspended-retain"), {"spec": {"suspend": True}})

    async def reported():
        found = await admin.condition("suspended", "Degraded")
        assert found["reason"] == "RetentionSuspended", found
        return found

    await eventually(reported)


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        ('pods "x" is forbidden: exceeded quota: compute, requested: pods=1, limited: pods=4', "QuotaExceeded"),
        ('pods "x" is forbidden: failed quota: compute: must specify limits.cpu', "QuotaExceeded"),
        ('pods "x" is forbidden: maximum memory usage per Container is 256Mi, but limit is 512Mi', "LimitRangeRefused"),
        ('pods "x" is forbidden: no PriorityClass with name high was found', "PriorityClassRefused"),
        ('pods "x" is forbidden: violates PodSecurity "restricted:latest": runAsNonRoot != true', "PodSecurityRefused"),
        ('error looking up service account ns/x: serviceaccount "x" not found', "ServiceAccountMissing"),
        ('admission webhook "policy.example" denied the request: label team is missing', "PodsRefused"),
    ],
)  # fmt: skip
def test_refusal_has_the_reason_of_kubernetes(message, reason):
    assert refusal(message)[0] == reason


def test_pod_trouble_is_one_printable_line():
    status = {
        "containerStatuses": [{
            "name": "w", "restartCount": 1, "state": {"waiting": {"reason": "CrashLoopBackOff"}},
            "lastState": {"terminated": {"exitCode": 1, "message": "Traceback:\n\x1b[31mValueError: no\x07\n"}},
        }]
    }  # fmt: skip
    assert pod_trouble(status, {}) == "CrashLoopBackOff: \\x1b[31mValueError: no\\x07"
    assert pod_trouble(json.loads(json.dumps({"phase": "Running"})), {}) == ""
