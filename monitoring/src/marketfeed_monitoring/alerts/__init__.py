"""The table of all alerts: query, duration, severity and annotations.

Thresholds and windows are in `config`. `rules` adds the URL of the runbook page, which it derives from the alert's
name, so that every alert has one.
"""

from typing import Final

from marketfeed_monitoring.alerts.data import DATA
from marketfeed_monitoring.alerts.ingestion import INGESTION
from marketfeed_monitoring.alerts.model import Alert
from marketfeed_monitoring.alerts.operator import OPERATOR
from marketfeed_monitoring.alerts.persistence import PERSISTENCE

__all__ = ["ALERTS", "Alert"]

ALERTS: Final[tuple[Alert, ...]] = (*DATA, *INGESTION, *PERSISTENCE, *OPERATOR)
