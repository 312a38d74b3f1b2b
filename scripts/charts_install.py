#!/usr/bin/env python3
"""Install marketfeed on a cluster, in two steps: what it stands on, then itself. Each may be run again at any time.

platform    Strimzi, the CockroachDB operator, Prometheus and Grafana (charts/marketfeed-platform); a cluster that has
            them needs it not, or with some switched off
install     the operator, and what the values ask for beside it (charts/marketfeed)
uninstall   the release of install; what it keeps on purpose is listed

Each ends when all of it is usable, and says meanwhile what it waits for. Exit code 1: it is not, and why.
"""

import argparse
import sys
from pathlib import Path
from typing import Final

from charts_cluster import (
    ROOT,
    Cluster,
    Failed,
    Object,
    Waiting,
    database,
    fail,
    kept,
    location,
    manifests,
    programs,
    readiness,
    reference,
    workloads,
)

MARKET_FEED: Final = ("marketfeed.dev/v1alpha1", "MarketFeed")
PLATFORM: Final = "marketfeed-platform"
REGION_LABEL: Final = "topology.kubernetes.io/region"
PLATFORM_KINDS: Final = {
    "strimzi": [
        ("kafka.strimzi.io/v1", kind) for kind in ("Kafka", "KafkaNodePool", "KafkaTopic", "KafkaUser")
    ],
    "cockroachdb": [("crdb.cockroachlabs.com/v1beta1", "CrdbCluster")],
    "monitoring": [("monitoring.coreos.com/v1", kind) for kind in ("PodMonitor", "PrometheusRule")],
}
"""Switch of the chart marketfeed-platform -> the kinds that are there once it works."""
OWN: Final = (("marketfeed.marketfeed.dev", "marketfeed-canary"), ("lease", "marketfeed-operator"))
"""What the operator makes for itself in its namespace."""


def platform(cluster: Cluster, options: argparse.Namespace) -> None:
    """Install charts/marketfeed-platform.

    Raises:
        Failed: it cannot be, or is not usable in time.
    """
    waiting = Waiting(options.timeout_seconds)
    chart = ROOT / "charts" / PLATFORM
    print("fetching the charts of Strimzi, CockroachDB and Prometheus from their repositories")
    cluster.run_helm("dependency", "update", str(chart))
    print(f"installing release {options.release} in namespace {options.namespace}")
    cluster.run_helm(*_upgrade(chart, options))
    values = next(manifests(_helm_get(cluster, "values", options, "--all", "--output=yaml")))
    wanted = [kind for switch, kinds in PLATFORM_KINDS.items() if values[switch]["enabled"] for kind in kinds]
    everything = ("deployments,statefulsets,daemonsets", "--namespace", options.namespace)
    waiting.until("the operators and Prometheus", lambda: workloads(cluster.find(*everything)))
    waiting.until("their kinds", lambda: _missing(wanted, cluster))
    if values["cockroachdb"]["enabled"]:
        _label_nodes(cluster, values["cockroachdb-operator-chart"]["cloudRegion"], write=options.label_nodes)


def _missing(wanted: list[tuple[str, str]], cluster: Cluster) -> str:
    known = cluster.kinds()
    return ", ".join(
        f"{kind} of {version} is not known yet" for version, kind in wanted if (version, kind) not in known
    )


def _label_nodes(cluster: Cluster, region: str, *, write: bool) -> None:
    nodes = cluster.find("nodes")
    other = [
        node["metadata"]["name"] for node in nodes if node["metadata"]["labels"].get(REGION_LABEL) != region
    ]
    if not other:
        return
    command = ["label", "nodes", *other, f"{REGION_LABEL}={region}"]
    if write:
        # Without --overwrite: a node that has another region is in another region.
        cluster.run_kubectl(*command)
        print(f"labelled {', '.join(other)} with {REGION_LABEL}={region}")
    else:
        print(
            f"CockroachDB will not run on {', '.join(other)}: the label {REGION_LABEL} is not {region}, the operator's "
            f"cloudRegion. Label them (--label-nodes does so), or set the region that they have:\n"
            f"  kubectl {' '.join(command)}"
        )


def install(cluster: Cluster, options: argparse.Namespace) -> None:
    """Install charts/marketfeed.

    Raises:
        Failed: it cannot be, or is not usable in time.
    """
    waiting = Waiting(options.timeout_seconds)
    chart = ROOT / "charts" / "marketfeed"
    # Rendered as it will be in the end, which Helm itself does only once the kind is known.
    api = ["--api-versions", "/".join(MARKET_FEED)]
    wanted = list(manifests(cluster.run_helm("template", *_release(chart, options), *api)))
    _check_kinds(cluster, wanted)
    feeds = [body for body in wanted if body["kind"] == "MarketFeed"]
    print(f"installing release {options.release} in namespace {options.namespace}")
    cluster.run_helm(*_upgrade(chart, options))
    waiting.until("the kind MarketFeed", lambda: _missing([MARKET_FEED], cluster))
    # At a line's start: the kind's own definition has that line too, further in.
    if feeds and "\nkind: MarketFeed\n" not in _helm_get(cluster, "manifest", options):
        print("the kind is new: once more, for the MarketFeed")
        cluster.run_helm(*_upgrade(chart, options))
    for body in sorted(wanted, key=_order):
        _await(cluster, waiting, body, options.namespace)
    print(_helm_get(cluster, "notes", options))


def _check_kinds(cluster: Cluster, wanted: list[Object]) -> None:
    known = {*cluster.kinds(), MARKET_FEED}
    missing = sorted(
        {
            (body["kind"], body["apiVersion"])
            for body in wanted
            if (body["apiVersion"], body["kind"]) not in known
        }
    )
    if missing:
        listed = ", ".join(f"{kind} of {version}" for kind, version in missing)
        raise Failed(
            f"the values ask for kinds that the cluster does not know: {listed}. Install what brings them first "
            "(make platform; cert-manager for Certificate), or switch off what needs them"
        )


_ORDER: Final = ("Deployment", "Kafka", "KafkaTopic", "KafkaUser", "CrdbCluster", "MarketFeed")


def _order(body: Object) -> int:
    return _ORDER.index(body["kind"]) if body["kind"] in _ORDER else -1


def _await(cluster: Cluster, waiting: Waiting, body: Object, namespace: str) -> None:
    if body["kind"] not in _ORDER:
        return
    what, where = reference(body), body["metadata"].get("namespace", namespace)

    def state() -> str:
        found = cluster.find(what, "--namespace", where)
        if body["kind"] == "Deployment":
            return workloads(found) if found else "is not there yet"
        tell = database if body["kind"] == "CrdbCluster" else readiness
        return tell(found[0] if found else None)

    waiting.until(f"{body['kind']} {body['metadata']['name']}", state)


def uninstall(cluster: Cluster, options: argparse.Namespace) -> None:
    """Uninstall the release of charts/marketfeed.

    Raises:
        Failed: helm or kubectl failed, or what should go stays.
    """
    waiting = Waiting(options.timeout_seconds)
    try:
        bodies = list(manifests(_helm_get(cluster, "manifest", options)))
    except Failed as failure:
        if "release: not found" not in str(failure):
            raise
        print(f"there is no release {options.release} in namespace {options.namespace}: nothing to uninstall")
        return
    cluster.run_helm("uninstall", options.release, "--namespace", options.namespace)
    going = [body for body in bodies if not kept(body)]
    waiting.until("the objects to go", lambda: _still_there(cluster, going))
    for kind, name in OWN:
        if cluster.find(kind, name, "--namespace", options.namespace):
            cluster.run_kubectl("delete", kind, name, "--namespace", options.namespace)
    _tell_kept(cluster, [body for body in bodies if kept(body)], options.namespace)


def _still_there(cluster: Cluster, bodies: list[Object]) -> str:
    return ", ".join(reference(body) for body in bodies if cluster.find(reference(body), *location(body)))


def _tell_kept(cluster: Cluster, bodies: list[Object], namespace: str) -> None:
    for body in bodies:
        print(f"kept: {reference(body)}")
    for feed in cluster.find("marketfeed.marketfeed.dev", "--all-namespaces"):
        where, name = feed["metadata"]["namespace"], feed["metadata"]["name"]
        print(f"kept: MarketFeed {name} in namespace {where}; its pods go on, and nobody looks after them")
    for claim in cluster.find("persistentvolumeclaims", "--namespace", namespace):
        print(f"kept: the data of {claim['metadata']['name']} in namespace {namespace}")


def _release(chart: Path, options: argparse.Namespace) -> list[str]:
    values = [word for file in options.values for word in ("--values", file)]
    single = [word for pair in options.set for word in ("--set", pair)]
    return [options.release, str(chart), "--namespace", options.namespace, *values, *single]


def _upgrade(chart: Path, options: argparse.Namespace) -> list[str]:
    return ["upgrade", "--install", "--create-namespace", *_release(chart, options)]


def _helm_get(cluster: Cluster, what: str, options: argparse.Namespace, *arguments: str) -> str:
    return cluster.run_helm("get", what, options.release, "--namespace", options.namespace, *arguments)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--context", default="", help="context of the kubeconfig [the current one]")
    steps = parser.add_subparsers(dest="step", required=True)
    for name, step, release in (
        ("platform", platform, PLATFORM),
        ("install", install, "marketfeed"),
        ("uninstall", uninstall, "marketfeed"),
    ):
        one = steps.add_parser(name, help=(step.__doc__ or "").partition("\n")[0])
        one.set_defaults(run=step)
        one.add_argument("--namespace", default=release, help=f"[{release}]")
        one.add_argument("--release", default=release, help=f"name of the release [{release}]")
        one.add_argument("--timeout-seconds", type=float, default=900, help="for all waits together [900]")
        if name != "uninstall":
            one.add_argument(
                "--values", action="append", default=[], metavar="FILE", help="repeatable, the last wins"
            )
            one.add_argument(
                "--set", action="append", default=[], metavar="KEY=VALUE", help="one value; repeatable"
            )
        if name == "platform":
            one.add_argument(
                "--label-nodes",
                action="store_true",
                help=f"give the nodes without one the label {REGION_LABEL}",
            )
    return parser


def main() -> int:
    """Run the step that the command line names."""
    options = _parser().parse_args()
    try:
        options.run(programs(options.context), options)
    except Failed as failure:
        return fail(str(failure))
    except KeyboardInterrupt:
        return fail("interrupted: run the same again to go on")
    return 0


if __name__ == "__main__":
    sys.exit(main())
