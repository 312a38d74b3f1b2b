"""Pod templates: containers with least privilege, their startup and their shutdown."""

from collections.abc import Mapping
from typing import Any, Final

from marketfeed_operator.api.pods import Resources, SecurityContext
from marketfeed_operator.desired.base import Feed, Object, labels, selector, without_none
from marketfeed_operator.desired.environment import ContainerContext
from marketfeed_operator.desired.service_account import pods_account
from marketfeed_operator.kinds import Kind
from marketfeed_operator.names import SECRET_VERSIONS

PRE_STOP_SECONDS: Final = 5
"""A worker keeps running for this time after termination begins, to overlap with the pod that replaces it."""
MARGIN_SECONDS: Final = 10
"""Margin between the service's own deadline and the kill."""
START_SECONDS: Final = 180
"""A service waits 60 s for Kafka and the venue; the rest is for image pull, imports and a busy node."""

_DEFAULT_RESOURCES: Final = Resources(requests={"cpu": "100m", "memory": "128Mi"}, limits={"memory": "512Mi"})


def grace_seconds(feed: Feed, *, pre_stop: bool) -> int:
    """Return the termination grace period: preStop, drain and margin."""
    return (PRE_STOP_SECONDS if pre_stop else 0) + feed.defaults.drain_seconds + MARGIN_SECONDS


def service_container(
    feed: Feed, *, name: str, image: str, command: list[str], context: ContainerContext, resources: Resources | None,
    pre_stop: bool,
) -> Object:  # fmt: skip
    """Return the container of a long-running service, with probes.

    Args:
        feed: the feed.
        name: name of the container.
        image: its image.
        command: its command.
        context: its variables and mounts.
        resources: its compute resources; None for the defaults.
        pre_stop: whether it keeps running for `PRE_STOP_SECONDS` after termination begins.
    """
    port = feed.defaults.metrics_port
    body = job_container(feed, name=name, image=image, command=command, context=context, resources=resources)
    body |= {
        "ports": [{"name": "metrics", "containerPort": port, "protocol": "TCP"}],
        "startupProbe": _probe("/livez", period=5, failures=START_SECONDS // 5),
        "livenessProbe": _probe("/livez", period=10, failures=6),
        "readinessProbe": _probe("/readyz", period=5, failures=2),
    }
    if pre_stop:
        body["lifecycle"] = {"preStop": {"sleep": {"seconds": PRE_STOP_SECONDS}}}
    return body


def job_container(
    feed: Feed,
    *,
    name: str,
    image: str,
    command: list[str],
    context: ContainerContext,
    resources: Resources | None,
) -> Object:
    """Return the container of a Job.

    Args:
        feed: the feed.
        name: name of the container.
        image: its image.
        command: its command.
        context: its variables and mounts.
        resources: its compute resources; None for the defaults.
    """
    return {
        "name": name,
        "image": image,
        "imagePullPolicy": feed.defaults.image_pull_policy,
        "command": command,
        "env": context.env,
        "resources": (resources or _DEFAULT_RESOURCES).model_dump(exclude_none=True),
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [*context.mounts, {"name": "tmp", "mountPath": "/tmp"}],  # noqa: S108 - in the container
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }


def _probe(path: str, *, period: int, failures: int) -> Object:
    return {
        "httpGet": {"path": path, "port": "metrics"},
        "periodSeconds": period,
        "timeoutSeconds": 3,
        "failureThreshold": failures,
    }


def secret_versions(feed: Feed, kind: Kind, name: str, context: ContainerContext) -> dict[str, str]:
    """Return the annotation that rolls a workload's pods when a Secret that they use has a new version.

    A Secret that cannot be read, temporarily or permanently, counts as unchanged: its stored version is kept.

    Args:
        feed: the feed, with the known versions.
        kind: kind of the workload.
        name: name of the workload.
        context: variables and mounts of its container.
    """
    # Anyone with write access to the workload may have edited this annotation: anything but NAME=VERSION is ignored.
    stored = dict(
        each.split("=")
        for each in feed.stored_secret_versions.get((kind.kind, name), "").split(",")
        if each.count("=") == 1
    )
    known = {**stored, **feed.secret_versions}
    versions = ",".join(f"{secret}={known[secret]}" for secret in sorted(context.secrets) if secret in known)
    return {SECRET_VERSIONS: versions} if versions else {}


def pod_template(
    feed: Feed, component: str, container: Object, context: ContainerContext, *, extra: dict[str, str] | None = None,
    annotations: Mapping[str, str] | None = None, spread: bool = True, **pod: Any,
) -> Object:  # fmt: skip
    """Return a pod template around `container`, with the restricted Pod Security Standard and the feed's settings.

    Args:
        feed: the feed.
        component: component label of the pods.
        container: their container.
        context: variables and mounts of the container.
        extra: additional labels.
        annotations: additional annotations.
        spread: whether the pods are spread over nodes.
        pod: further fields of the pod spec.
    """
    requested = feed.spec.template
    spec = {
        "serviceAccountName": pods_account(feed),
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": _pod_security(feed),
        "containers": [container],
        "volumes": [*context.volumes, {"name": "tmp", "emptyDir": {"sizeLimit": "64Mi"}}],
        "nodeSelector": requested.node_selector,
        "tolerations": [item.model_dump(by_alias=True, exclude_none=True) for item in requested.tolerations]
        or None,
        "affinity": requested.affinity.model_dump(by_alias=True, exclude_none=True, mode="json")
        if requested.affinity
        else None,
        "priorityClassName": requested.priority_class_name,
        "imagePullSecrets": [{"name": name} for name in requested.image_pull_secrets] or None,
        "topologySpreadConstraints": _spread(feed, component) if spread else None,
        **pod,
    }
    return {
        "metadata": without_none(
            {
                "labels": {**(requested.labels or {}), **labels(feed, component, extra)},
                "annotations": {**(requested.annotations or {}), **(annotations or {})} or None,
            }
        ),
        "spec": without_none(spec),
    }


def _pod_security(feed: Feed) -> Object:
    """Return the pod security context, restricted Pod Security Standard. The images set an unprivileged user by
    default.

    OpenShift assigns its own and refuses a fixed one.
    """
    requested, default = feed.spec.template.security_context or SecurityContext(), feed.defaults
    return without_none(
        {
            "runAsNonRoot": True,
            "runAsUser": requested.run_as_user or default.run_as_user,
            "runAsGroup": requested.run_as_group or default.run_as_group,
            "fsGroup": requested.fs_group or default.fs_group,
            "seccompProfile": {"type": "RuntimeDefault"},
        }
    )


def _spread(feed: Feed, component: str) -> list[Object]:
    return [
        {
            "maxSkew": 1,
            "topologyKey": key,
            # The loss of a node must not leave pods unscheduled.
            "whenUnsatisfiable": "ScheduleAnyway",
            "labelSelector": {"matchLabels": selector(feed, component)},
        }
        for key in ("kubernetes.io/hostname", "topology.kubernetes.io/zone")
    ]
