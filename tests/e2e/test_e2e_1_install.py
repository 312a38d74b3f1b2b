"""Journey 1: install, apply, Ready; metrics and dashboards have data."""

import json
import re
import time
import urllib.request
from typing import Any

import pytest
import yaml
from e2e_kube import Failed, until
from e2e_platform import CHART
from e2e_system import FEED, NAMESPACE, System, conditions

from marketfeed_monitoring.boards import BOARDS

pytest_plugins = ["e2e_fixtures"]
SCRAPED_SECONDS = 300.0
"""A new PodMonitor reaches Prometheus through a Secret, which the kubelet updates in a running pod within minutes."""


def test_apply_and_ready(system: System) -> None:
    feed = system.await_ready()
    status = feed["status"]
    assert status["symbols"]["resolved"] == 200, status["symbols"]
    assert status["shards"]["desired"] == status["shards"]["ready"] == 4
    assert status["consumers"]["ready"] == 3
    assert {kind: each["status"] for kind, each in conditions(feed).items()} == {
        "Ready": "True",
        "Progressing": "False",
        "Degraded": "False",
        "Paused": "False",
    }
    printed = system.kube.run("--namespace", NAMESPACE, "get", "mf")
    header, row = printed.splitlines()
    assert header.split()[:4] == ["NAME", "VENUE", "SYMBOLS", "SHARDS"], printed
    assert row.split()[:4] == [FEED, "binance_us", "200", "4"], printed
    assert "AllReady" in row, printed
    # The market opened when every stream was subscribed: every trade is expected.
    system.trades_flow()
    system.compare(first_of={})


def test_ports_and_metrics(system: System) -> None:
    with system.kube.port_forward("monitoring", "services/prometheus-operated", 9090) as port:
        asked = f"http://127.0.0.1:{port}/api/v1/query?query=count(up)"
        with urllib.request.urlopen(asked, timeout=10) as answer:
            assert json.load(answer)["status"] == "success"
    worker = system.workers()[0]["metadata"]["name"]
    with (
        system.kube.port_forward(NAMESPACE, f"pod/{worker}", 8000) as port,
        urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer,
    ):
        text = answer.read().decode()
    assert re.search(r"^kafka_publish_success_total\{.*\} [1-9]", text, re.M), text[:2000]
    counted = until(
        "Prometheus scrapes every pod of the feed",
        lambda: system.prometheus(f'sum(up{{namespace="{NAMESPACE}"}})') or None,
        seconds=SCRAPED_SECONDS,
    )
    pods = len(system.workers()) + len(system.consumers())
    until(
        f"{pods} pods are up in Prometheus",
        lambda: int(system.prometheus(f'sum(up{{namespace="{NAMESPACE}"}})')[0]["value"][1]) == pods,
        seconds=SCRAPED_SECONDS,
    )
    assert counted
    system.compare()


def test_dashboards_have_data(system: System) -> None:
    """Prometheus evaluates every query of every dashboard that the chart installs; some have data only with faults."""
    may_be_empty = {
        query.expr
        for board in BOARDS
        for panel in board.panels
        for query in panel.queries
        if query.may_be_empty
    }
    installed = system.kube.get("marketfeed", "configmaps", "--selector=grafana_dashboard=1")["items"]
    assert installed, "the chart has installed no dashboard"
    queries: dict[str, str] = {}
    for config_map in installed:
        for text in config_map["data"].values():
            dashboard = json.loads(text)
            for panel in _panels(dashboard):
                for target in panel.get("targets", []):
                    queries[f"{dashboard['title']} / {panel.get('title', '')}: {target['expr']}"] = target[
                        "expr"
                    ]
    assert queries, "no dashboard has a query"
    refused, empty = {}, {}
    deadline = time.monotonic() + SCRAPED_SECONDS
    for title, promql in queries.items():
        while True:
            try:
                found = system.prometheus(_filled(promql))
            except Failed as error:
                refused[title] = str(error)
                break
            if found or promql in may_be_empty:
                break
            if time.monotonic() > deadline:
                empty[title] = _filled(promql)
                break
            time.sleep(3)
    assert not refused, f"Prometheus rejects {refused}"
    assert not empty, json.dumps(empty, indent=1)
    system.compare()


def _panels(dashboard: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for panel in dashboard.get("panels", []):
        found += [panel, *panel.get("panels", [])]
    return found


def _filled(promql: str) -> str:
    """Return a panel's query with its variables substituted as by Grafana for All."""
    promql = promql.replace("$__rate_interval", "1m").replace("$__range", "5m").replace("$__interval", "15s")
    return re.sub(r"\$(\{\w+(:\w+)?\}|\w+)", ".*", promql)


OLD_ROWS = """
INSERT INTO book_tickers (venue, symbol, update_id, bid_price, bid_qty, ask_price, ask_qty, received_time_us)
    SELECT venue, symbol, 0, 1, 1, 1, 1, 1577836800000000 FROM top_of_book ORDER BY symbol LIMIT 1;
INSERT INTO dead_letters (topic, topic_id, "partition", kafka_offset, reason, stored_time_us)
    VALUES ('old', '', 0, 0, 'of this test', 1577836800000000);
"""
OLD_ROWS_LEFT = """
SELECT (SELECT count(*) FROM book_tickers WHERE received_time_us = 1577836800000000),
    (SELECT count(*) FROM dead_letters WHERE topic = 'old')
"""


def test_retention_deletes_old_rows(system: System) -> None:
    """The feed's CronJob deletes them; a user can start a run at once; recent rows stay."""

    def cron_jobs() -> list[str]:
        return [each["metadata"]["name"] for each in system.kube.get(NAMESPACE, "cronjobs")["items"]]

    def run() -> bool:
        job = system.kube.get(NAMESPACE, "job", "retain-now")
        assert not job["status"].get("failed"), job["status"]
        return bool(job["status"].get("succeeded"))

    assert not cron_jobs()
    system.database.rows(OLD_ROWS)
    assert system.database.rows(OLD_ROWS_LEFT) == [["1", "1"]]
    system.patch_feed({"storage": {"retention": {"bookTickersDays": 30, "deadLettersDays": 30}}})
    until("the feed's CronJob exists", lambda: cron_jobs() == [f"{FEED}-retain"], seconds=60)
    system.kube.run(
        *("--namespace", NAMESPACE, "create", "job", f"--from=cronjob/{FEED}-retain", "retain-now")
    )
    until("its run has succeeded", run, seconds=120)
    assert system.database.rows(OLD_ROWS_LEFT) == [["0", "0"]]
    until(
        "the feed's status has the run",
        lambda: system.feed()["status"].get("retention", {}).get("state") == "Succeeded",
        seconds=60,
    )
    system.patch_feed({"storage": {"retention": None}})
    until("the CronJob is deleted", lambda: not cron_jobs(), seconds=60)
    system.kube.run("--namespace", NAMESPACE, "delete", "job", "retain-now", "--ignore-not-found")
    system.await_ready()
    system.compare()


def test_third_party_resources(system: System) -> None:
    """The chart's objects for Strimzi and CockroachDB, and the operator's for KEDA, before a real API server."""
    if not system.platform.has_others_kinds:
        pytest.skip("../shared/crds is absent: the CRDs of Strimzi, CockroachDB and KEDA are unavailable")
    rendered = system.platform.helm(
        *("template", "whole", str(CHART), "--namespace", "whole", "--set=kafka.enabled=true"),
        *("--api-versions=kafka.strimzi.io/v1", "--api-versions=monitoring.coreos.com/v1"),
    )
    objects = [each for each in yaml.safe_load_all(rendered) if each]
    strimzi = [each for each in objects if each["apiVersion"].startswith("kafka.strimzi.io/")]
    assert {"Kafka", "KafkaNodePool", "KafkaTopic", "KafkaUser"} <= {each["kind"] for each in strimzi}
    for each in strimzi:
        each["metadata"]["namespace"] = "default"
        _dry_run(system, each)
    broken = json.loads(json.dumps(next(each for each in strimzi if each["kind"] == "KafkaTopic")))
    broken["spec"]["partitions"] = 0
    with pytest.raises(Failed, match="partitions"):
        _dry_run(system, broken)
    autoscaled = system.spec(["BTCUSDT"])
    autoscaled["kafka"]["manageTopics"] = True
    autoscaled["kafka"]["cluster"] = {"name": "nowhere"}
    del autoscaled["kafka"]["bootstrapServers"]
    autoscaled["consumers"]["trades"] = {"autoscaling": {"minReplicas": 1, "maxReplicas": 4}}
    system.kube.run("create", "namespace", "others")
    try:
        system.apply_feed(autoscaled, "others", "others")
        until(
            "the ScaledObject and five KafkaTopics are accepted",
            lambda: (
                system.kube.get("others", "scaledobjects")["items"]
                and len(system.kube.get("others", "kafkatopics")["items"]) == 5
            ),
            seconds=60,
        )
    finally:
        system.kube.run("delete", "namespace", "others", seconds=180)


def _dry_run(system: System, found: dict[str, object]) -> None:
    system.kube.run("apply", "--server-side", "--dry-run=server", "-f", "-", text=json.dumps(found))
