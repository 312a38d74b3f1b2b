"""Kinds of a feed's children."""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Kind:
    """Kind of object, as in API discovery.

    Attributes:
        optional: custom resource of another operator, served only where its CRD is installed.
    """

    api_version: str
    kind: str
    plural: str
    optional: bool = False

    @property
    def group(self) -> str:
        """API group; "" for the core group."""
        return self.api_version.rpartition("/")[0]

    def path(self, namespace: str | None, name: str = "") -> str:
        """Return the URL path of an object, of a namespace's objects, or of all objects."""
        prefix = f"/apis/{self.api_version}" if self.group else f"/api/{self.api_version}"
        inside = f"/namespaces/{namespace}" if namespace else ""
        return f"{prefix}{inside}/{self.plural}" + (f"/{name}" if name else "")


SERVICE_ACCOUNT: Final = Kind("v1", "ServiceAccount", "serviceaccounts")
CONFIG_MAP: Final = Kind("v1", "ConfigMap", "configmaps")
SERVICE: Final = Kind("v1", "Service", "services")
POD: Final = Kind("v1", "Pod", "pods")
DEPLOYMENT: Final = Kind("apps/v1", "Deployment", "deployments")
STATEFUL_SET: Final = Kind("apps/v1", "StatefulSet", "statefulsets")
JOB: Final = Kind("batch/v1", "Job", "jobs")
CRON_JOB: Final = Kind("batch/v1", "CronJob", "cronjobs")
BUDGET: Final = Kind("policy/v1", "PodDisruptionBudget", "poddisruptionbudgets")
NETWORK_POLICY: Final = Kind("networking.k8s.io/v1", "NetworkPolicy", "networkpolicies")
KAFKA_TOPIC: Final = Kind("kafka.strimzi.io/v1", "KafkaTopic", "kafkatopics", optional=True)
KAFKA: Final = Kind("kafka.strimzi.io/v1", "Kafka", "kafkas", optional=True)
"""Strimzi's; read only, for its listeners."""
SECRET: Final = Kind("v1", "Secret", "secrets")
"""The user's own; only their metadata is read, when enabled."""
POD_MONITOR: Final = Kind("monitoring.coreos.com/v1", "PodMonitor", "podmonitors", optional=True)
SCALED_OBJECT: Final = Kind("keda.sh/v1alpha1", "ScaledObject", "scaledobjects", optional=True)

WATCHED: Final = (
    SERVICE_ACCOUNT, CONFIG_MAP, SERVICE, DEPLOYMENT, STATEFUL_SET, JOB, CRON_JOB, BUDGET, NETWORK_POLICY,
)  # fmt: skip
"""Children that are watched."""
OPTIONAL: Final = (KAFKA_TOPIC, POD_MONITOR, SCALED_OBJECT)
"""Children that are compared at each audit only: a watch on a kind without CRD would have to be restarted."""
CHILDREN: Final = (*WATCHED, *OPTIONAL)
BY_NAME: Final = {kind.kind: kind for kind in (*CHILDREN, POD)}
