"""Why a workload or pod is stuck, as reported by its controller, the scheduler or the kubelet. Pure.

Reasons are those of Kubernetes where it has one, because people search for them.
"""

import re
from collections.abc import Mapping
from typing import Any, Final

from marketfeed_operator.text import printable

Body = Mapping[str, Any]
Trouble = tuple[str, str]
"""Reason and message."""

_WAITING_IS_TROUBLE: Final = {
    "CrashLoopBackOff", "CreateContainerConfigError", "CreateContainerError", "ErrImageNeverPull", "ErrImagePull",
    "ImageInspectError", "ImagePullBackOff", "InvalidImageName", "PostStartHookError", "PreCreateHookError",
    "PreStartHookError", "RegistryUnavailable", "RunContainerError", "SignatureValidationFailed",
}  # fmt: skip
_PULL: Final = {"ErrImageNeverPull", "ErrImagePull", "ImagePullBackOff", "InvalidImageName"}
_TEXT: Final = 400
_REASON: Final = re.compile(r"[A-Z][A-Za-z0-9]{0,63}")


def workload_trouble(kind: str, body: Body) -> Trouble | None:
    """Return why a workload is stuck; None when its controller reports nothing."""
    spec, status = body.get("spec") or {}, body.get("status") or {}
    conditions = {found.get("type"): found for found in status.get("conditions") or []}
    if kind == "Deployment":
        return _deployment(spec, conditions)
    if kind == "Job":
        return _job(spec, conditions)
    if kind == "CronJob" and spec.get("suspend"):
        return ("RetentionSuspended", "it is suspended, so expired rows are not deleted")
    return None


def _deployment(spec: Body, conditions: Mapping[Any, Body]) -> Trouble | None:
    refused = conditions.get("ReplicaFailure", {})
    if refused.get("status") == "True":
        return refusal(str(refused.get("message", "")))
    progressing = conditions.get("Progressing", {})
    if progressing.get("status") == "False":
        reason = str(progressing.get("reason"))
        return (
            reason if _REASON.fullmatch(reason) else "ProgressDeadlineExceeded",
            printable(str(progressing.get("message", "")), _TEXT),
        )
    if spec.get("paused"):
        return (
            "RolloutPaused",
            "its rollout is paused, so changes are not rolled out: kubectl rollout resume",
        )
    return None


def _job(spec: Body, conditions: Mapping[Any, Body]) -> Trouble | None:
    failed = conditions.get("Failed", {})
    if failed.get("status") == "True":
        return ("JobFailed", printable(f"{failed.get('reason', '')}: {failed.get('message', '')}", _TEXT))
    if spec.get("suspend"):
        return ("JobSuspended", "it is suspended, so it does not run")
    return None


def refusal(message: str) -> Trouble:
    """Return reason and message of a refused pod creation, from the API server's message."""
    lower = message.lower()
    if "exceeded quota" in lower or "failed quota" in lower:
        reason = "QuotaExceeded"
    elif "priorityclass" in lower or "priority class" in lower:
        reason = "PriorityClassRefused"
    elif "violates podsecurity" in lower:
        reason = "PodSecurityRefused"
    elif "serviceaccount" in lower or "service account" in lower:
        reason = "ServiceAccountMissing"
    elif " per container " in lower or " per pod " in lower:
        reason = "LimitRangeRefused"
    else:
        reason = "PodsRefused"
    return (reason, printable(message, _TEXT))


def pod_trouble(status: Body, conditions: Mapping[str, Body]) -> str:
    """Return why a pod cannot run, beginning with the reason; "" when it can, or was not scheduled yet."""
    if status.get("phase") == "Failed" and status.get("reason"):
        # Evicted, Preempting, NodeShutdown and similar; a pod whose containers terminated has none.
        return printable(f"{status['reason']}: {status.get('message', '')}", _TEXT).rstrip(": ")
    scheduled = conditions.get("PodScheduled", {})
    if scheduled.get("reason") in ("Unschedulable", "SchedulingGated"):
        return printable(f"not scheduled: {scheduled.get('message', '')}", _TEXT)
    statuses = [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]
    return next((found for each in statuses if (found := _container_trouble(each))), "")


def _container_trouble(container: Body) -> str:
    state = container.get("state") or {}
    waiting, ended = state.get("waiting") or {}, state.get("terminated") or {}
    last = (container.get("lastState") or {}).get("terminated") or {}
    killed = next((each for each in (ended, last) if each.get("reason") == "OOMKilled"), None)
    restarts = container.get("restartCount", 0)
    if killed is not None:
        return f"OOMKilled: container {container.get('name')} exceeded its memory limit, {restarts} restarts"
    if waiting.get("reason") in _WAITING_IS_TROUBLE:
        said = _last_line(last.get("message", ""))
        if not said and last and waiting["reason"] not in _PULL:
            said = f"the container terminated with exit code {last.get('exitCode')}, {restarts} restarts"
        return printable(f"{waiting['reason']}: {said or waiting.get('message', '')}", _TEXT).rstrip(": ")
    if ended and ended.get("exitCode") and not container.get("ready"):
        said = _last_line(ended.get("message", "")) or f"exit code {ended['exitCode']}"
        return printable(f"{ended.get('reason') or 'Error'}: {said}", _TEXT)
    return ""


def _last_line(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1].strip() if lines else ""
