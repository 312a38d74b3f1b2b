"""Shared parts of the retention tests: a spec with retention, its CronJob, invalid schedules."""

from typing import Any

from marketfeed_operator.api import Spec, parse
from marketfeed_operator.desired import Defaults, Feed
from marketfeed_operator.desired.cron_job import retention_cron_job

STORAGE = {"engine": "postgresql", "dsnSecretName": "database"}
SPEC: dict[str, Any] = {"venue": "binance_us", "symbols": ["AA"], "kafka": {"bootstrapServers": "k:9092"}}
FEED = ("default", "feed")


def sound(retention: dict[str, Any] | None, **changes: Any) -> Spec:
    storage = {**STORAGE, "retention": retention} if retention is not None else STORAGE
    found = parse({**SPEC, "storage": storage, **changes})
    assert isinstance(found, Spec), found
    return found


def feed(retention: dict[str, Any] | None, **changes: Any) -> Feed:
    return Feed(*FEED, "uid", 1, sound(retention, **changes), Defaults("worker:1", "consumer:1"))


def cron_job(retention: dict[str, Any], **changes: Any) -> dict[str, Any]:
    child = retention_cron_job(feed(retention, **changes), suspended=False)
    assert child is not None
    assert child.body is not None
    return child.body


def container(body: dict[str, Any]) -> dict[str, Any]:
    (found,) = body["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"]
    return dict(found)


NO_SCHEDULES = [
    "", "daily", "@daily", "@every 1h", "* * * *", "* * * * * *", "60 * * * *", "* 24 * * *", "* * 0 * "
    "*", "* "
    "* 32 * *",
    "* * * 13 *", "* * * * 7", "*/0 * * * *", "1, * * * *", "TZ=UTC 0 0 * * *", "0 0 * * * ", "0 0\n* * *",
    "-5 * * * *",
]  # fmt: skip
