"""Model of an alerting rule, and label lists and texts that alerts share."""

from dataclasses import dataclass
from typing import Final, Literal

Severity = Literal["critical", "warning"]
"""critical: data is lost or not processed; page the person on call. warning: handle within working hours."""

SYMBOL: Final = "namespace, feed, venue, symbol"
PARTITION: Final = "namespace, feed, topic, partition"
WHERE: Final = "{{ with $labels.feed }}feed {{ . }}, {{ end }}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Alert:
    """An alerting rule.

    Attributes:
        group: Name of the rule group.
        wait: Prometheus' `for`; "0m" fires at the first evaluation.
        reason: Reason for the window, the threshold and `wait`; rendered as a comment above the rule.
        summary: One line that names what is affected.
        description: Meaning of the alert and where to look first.
    """

    name: str
    group: Literal["data", "ingestion", "persistence", "operator"]
    severity: Severity
    expr: str
    wait: str
    reason: str
    summary: str
    description: str
