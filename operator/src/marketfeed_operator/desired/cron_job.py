"""CronJob that deletes what is older than it is to be kept. Without `spec.storage.retention` there is none."""

from typing import Final

from marketfeed_operator.api.storage import Retention
from marketfeed_operator.desired import environment, pods
from marketfeed_operator.desired.base import Child, Feed, child, labels
from marketfeed_operator.kinds import CRON_JOB
from marketfeed_operator.names import RETENTION

START_SECONDS: Final = 3600
"""A run that cannot start for that long after its time (a quota, no controller) is left out: the next does it all."""
RUN_SECONDS: Final = 86_400
"""A run that hangs would keep all others from starting. What one that is ended leaves, the next deletes."""


def retention_cron_job(feed: Feed, *, suspended: bool) -> Child | None:
    """The runs of `marketfeed-consumer retain`; None when everything is kept.

    Args:
        suspended: none may start for now. When they may, nothing is said of it: so a suspension by somebody else stays.
    """
    storage = feed.spec.storage
    if storage is None or storage.retention is None:
        return None
    images = feed.spec.images
    around = environment.database_job(feed)
    container = pods.job_container(
        feed,
        name="retain",
        image=(images and images.consumer) or feed.defaults.consumer_image,
        command=["marketfeed-consumer", "retain", *_options(storage.retention)],
        around=around,
        resources=None,
    )
    template = pods.pod_template(
        feed,
        RETENTION,
        container,
        around,
        spread=False,
        restartPolicy="Never",
        terminationGracePeriodSeconds=30,
    )
    spec = {
        "schedule": storage.retention.schedule,
        "timeZone": "Etc/UTC",
        "concurrencyPolicy": "Forbid",
        "startingDeadlineSeconds": START_SECONDS,
        "successfulJobsHistoryLimit": 1,
        "failedJobsHistoryLimit": 1,
        **({"suspend": True} if suspended else {}),
        "jobTemplate": {
            # By these the Jobs are watched, and a failed one is told.
            "metadata": {"labels": labels(feed, RETENTION)},
            "spec": {"backoffLimit": 6, "activeDeadlineSeconds": RUN_SECONDS, "template": template},
        },
    }
    return child(feed, CRON_JOB, f"{feed.name}-retain", RETENTION, {"spec": spec})


def _options(kept: Retention) -> list[str]:
    days = {
        "--trades-days": kept.trades_days,
        "--book-tickers-days": kept.book_tickers_days,
        "--candles-1m-days": kept.candles_days,
        "--dead-letters-days": kept.dead_letters_days,
    }
    return [word for option, kept_days in days.items() if kept_days for word in (option, str(kept_days))]
