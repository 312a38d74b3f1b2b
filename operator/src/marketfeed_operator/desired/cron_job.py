"""CronJob that deletes expired rows; none without `spec.storage.retention`."""

from typing import Final

from marketfeed_operator.api.storage import Retention
from marketfeed_operator.desired import environment, pods
from marketfeed_operator.desired.base import Child, Feed, child, labels
from marketfeed_operator.kinds import CRON_JOB
from marketfeed_operator.names import RETENTION

START_SECONDS: Final = 3600
"""A run that cannot start within this time (quota, no controller) is skipped: the next one deletes its rows too."""
RUN_SECONDS: Final = 86_400
"""A run that hangs would block all later ones. Rows that a terminated run leaves are deleted by the next."""


def retention_cron_job(feed: Feed, *, suspended: bool) -> Child | None:
    """Return the CronJob of `marketfeed-consumer retain`; None when everything is kept.

    Args:
        suspended: no run may start for now. Otherwise `suspend` is left out, so that a suspension by a user stays.
    """
    storage = feed.spec.storage
    if storage is None or storage.retention is None:
        return None
    images = feed.spec.images
    context = environment.database_job(feed)
    container = pods.job_container(
        feed,
        name="retain",
        image=(images and images.consumer) or feed.defaults.consumer_image,
        command=["marketfeed-consumer", "retain", *_options(storage.retention)],
        context=context,
        resources=None,
    )
    template = pods.pod_template(
        feed,
        RETENTION,
        container,
        context,
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
            # Labels by which the Jobs are watched, and failed ones reported.
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
