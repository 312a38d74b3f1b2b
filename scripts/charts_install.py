#!/usr/bin/env python3
"""Install marketfeed on a cluster in two steps, its platform and marketfeed. The steps are idempotent.

platform    install Strimzi, the CockroachDB operator, Prometheus and Grafana (charts/marketfeed-platform); not needed
            if the cluster has them; each can be disabled
install     install the operator and the optional objects of the values (charts/marketfeed)
uninstall   uninstall the release of install and list the objects that are kept

Each step waits until everything is ready and prints what it waits for. Exit code 1: it failed, with the reason.
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
"""Switch of the chart marketfeed-platform -> the CRDs that it installs."""
OWN: Final = (("marketfeed.marketfeed.dev", "marketfeed-canary"), ("lease", "marketfeed-operator"))
"""Objects that the operator creates in its namespace."""


def platform(cluster: Cluster, options: argparse.Namespace) -> None:
    """Install charts/marketfeed-platform.

    Raises:
        Failed: The installation failed or is not ready in time.
    """
    waiting = Waiting(options.timeout_seconds)
    chart = ROOT / "charts" / PLATFORM
    print("fetching the charts of Strimzi, CockroachDB and Prometheus from their repositories")
    cluster.run_helm("dependency", "update", str(chart))
    print(f"installing release {options.release} in namespace {options.namespace}")
    cluster.run_helm(*_upgrade(chart, options))
    values = next(manifests(_helm_get(cluster, "values", options, "--all", "--output=yaml")))
    required = [
        kind for switch, kinds in PLATFORM_KINDS.items() if values[switch]["enabled"] for kind in kinds
    ]
    everything = ("deployments,statefulsets,daemonsets", "--namespace", options.namespace)
    waiting.until("the operators and Prometheus", lambda: workloads(cluster.find(*everything)))
    waiting.until("their CRDs", lambda: _missing(required, cluster))
    if values["cockroachdb"]["enabled"]:
        _label_nodes(cluster, values["cockroachdb-operator-chart"]["cloudRegion"], write=options.label_nodes)


def _missing(required: list[tuple[str, str]], cluster: Cluster) -> str:
    served = cluster.kinds()
    return ", ".join(
        f"{kind} of {version} is not installed yet"
        for version, kind in required
        if (version, kind) not in served
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
        # Without --overwrite: a node with another label is in another region.
        cluster.run_kubectl(*command)
        print(f"labelled {', '.join(other)} with {REGION_LABEL}={region}")
    else:
        print(
            f"CockroachDB will not run on {', '.join(other)}: the label {REGION_LABEL} is not {region}, the operator's "
            f"cloudRegion. Label them (option --label-nodes), or set cloudRegion to their region:\n"
            f"  kubectl {' '.join(command)}"
        )


def install(cluster: Cluster, options: argparse.Namespace) -> None:
    """Install charts/marketfeed.

    Raises:
        Failed: The installation failed or is not ready in time.
    """
    waiting = Waiting(options.timeout_seconds)
    chart = ROOT / "charts" / "marketfeed"
    # Rendered in its final form; Helm itself renders the MarketFeed only if the CRD is installed.
    api = ["--api-versions", "/".join(MARKET_FEED)]
    desired = list(manifests(cluster.run_helm("template", *_release(chart, options), *api)))
    _check_kinds(cluster, desired)
    feeds = [body for body in desired if body["kind"] == "MarketFeed"]
    print(f"installing release {options.release} in namespace {options.namespace}")
    cluster.run_helm(*_upgrade(chart, options))
    waiting.until("the CRD of MarketFeed", lambda: _missing([MARKET_FEED], cluster))
    # At the start of a line: the CRD contains the text too, indented.
    if feeds and "\nkind: MarketFeed\n" not in _helm_get(cluster, "manifest", options):
        print("the CRD was installed by this release: upgrading again for the MarketFeed")
        cluster.run_helm(*_upgrade(chart, options))
    for body in sorted(desired, key=_order):
        _await(cluster, waiting, body, options.namespace)
    print(_helm_get(cluster, "notes", options))


def _check_kinds(cluster: Cluster, desired: list[Object]) -> None:
    served = {*cluster.kinds(), MARKET_FEED}
    missing = sorted(
        {
            (body["kind"], body["apiVersion"])
            for body in desired
            if (body["apiVersion"], body["kind"]) not in served
        }
    )
    if missing:
        listed = ", ".join(f"{kind} of {version}" for kind, version in missing)
        raise Failed(
            f"the values need CRDs that are not installed: {listed}. Install them first "
            "(make platform; cert-manager for Certificate), or disable what needs them"
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
            return workloads(found) if found else "does not exist yet"
        check = database if body["kind"] == "CrdbCluster" else readiness
        return check(found[0] if found else None)

    waiting.until(f"{body['kind']} {body['metadata']['name']}", state)


def uninstall(cluster: Cluster, options: argparse.Namespace) -> None:
    """Uninstall the release of charts/marketfeed.

    Raises:
        Failed: helm or kubectl failed, or objects were not deleted in time.
    """
    waiting = Waiting(options.timeout_seconds)
    try:
        bodies = list(manifests(_helm_get(cluster, "manifest", options)))
    except Failed as failure:
        if "release: not found" not in str(failure):
            raise
        print(f"no release {options.release} in namespace {options.namespace}: nothing to uninstall")
        return
    cluster.run_helm("uninstall", options.release, "--namespace", options.namespace)
    deleted = [body for body in bodies if not kept(body)]
    waiting.until("deletion", lambda: _remaining(cluster, deleted))
    for kind, name in OWN:
        if cluster.find(kind, name, "--namespace", options.namespace):
            cluster.run_kubectl("delete", kind, name, "--namespace", options.namespace)
    _print_kept(cluster, [body for body in bodies if kept(body)], options.namespace)


def _remaining(cluster: Cluster, bodies: list[Object]) -> str:
    return ", ".join(reference(body) for body in bodies if cluster.find(reference(body), *location(body)))


def _print_kept(cluster: Cluster, bodies: list[Object], namespace: str) -> None:
    for body in bodies:
        print(f"kept: {reference(body)}")
    for feed in cluster.find("marketfeed.marketfeed.dev", "--all-namespaces"):
        where, name = feed["metadata"]["namespace"], feed["metadata"]["name"]
        print(f"kept: MarketFeed {name} in namespace {where}; its pods keep running without an operator")
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
    parser.add_argument("--context", default="", help="context of the kubeconfig [current context]")
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
        one.add_argument(
            "--timeout-seconds", type=float, default=900, help="total timeout of all waits [900]"
        )
        if name != "uninstall":
            one.add_argument(
                "--values",
                action="append",
                default=[],
                metavar="FILE",
                help="repeatable; the last one takes precedence",
            )
            one.add_argument(
                "--set", action="append", default=[], metavar="KEY=VALUE", help="a single value; repeatable"
            )
        if name == "platform":
            one.add_argument(
                "--label-nodes",
                action="store_true",
                help=f"set the label {REGION_LABEL} on nodes without it",
            )
    return parser


def main() -> int:
    """Run the step in the command line."""
    options = _parser().parse_args()
    try:
        options.run(programs(options.context), options)
    except Failed as failure:
        return fail(str(failure))
    except KeyboardInterrupt:
        return fail("interrupted: run the same command again to continue")
    return 0


if __name__ == "__main__":
    sys.exit(main())
