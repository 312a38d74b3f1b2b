"""The system under test from a user's side: a MarketFeed, its pods, the database, the venue, Prometheus."""

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import e2e_ledger
from e2e_kube import Failed, Kube, query, until
from e2e_ledger import Comparison
from e2e_platform import RELEASE, Platform
from e2e_report import Journey

NAMESPACE: Final = "feeds"
FEED: Final = "market"
SECRET: Final = "marketfeed-database"
_OWNER: Final = "postgresql://marketfeed:e2e-of-a-thrown-away-cluster"
DSN: Final = f"{_OWNER}@postgres.data.svc:5432"
_DSN_IN_THE_POD: Final = f"{_OWNER}@127.0.0.1:5432"
BROKER: Final = "kafka.data.svc:9092"
VENUE: Final = "services/simulator:9443"
PROMETHEUS: Final = "services/prometheus-operated:9090"
OPERATOR: Final = "app.kubernetes.io/name=marketfeed,app.kubernetes.io/component=operator"
READY_SECONDS: Final = 300.0
COMPLETE_SECONDS: Final = 180.0

Object = dict[str, Any]


@dataclass(frozen=True)
class Postgres:
    """One database of the PostgreSQL pod, queried by psql in that pod."""

    kube: Kube
    name: str = "market"

    def rows(self, sql: str) -> list[list[str]]:
        """Return the rows of `sql`, every value as text.

        Raises:
            Failed: the database did not respond, or returned an error.
        """
        output = self.kube.run(
            *("--namespace", "data", "exec", "--stdin", "postgres-0", "--"),
            *("psql", f"--dbname={_DSN_IN_THE_POD}/{self.name}", "--no-password"),
            *("--no-align", "--tuples-only", "--quiet", "--field-separator=\t", "--set=ON_ERROR_STOP=1"),
            text=sql,
        )
        return [line.split("\t") for line in output.splitlines() if line]


@dataclass
class System:
    """Everything that a journey uses, and its notes for the report."""

    platform: Platform
    journey: Journey = field(default_factory=lambda: Journey("none"))

    @property
    def kube(self) -> Kube:
        return self.platform.kube

    @property
    def database(self) -> Postgres:
        """The database of most journeys' feed."""
        return Postgres(self.kube)

    # The MarketFeed

    def spec(self, symbols: Sequence[str], **changes: Any) -> Object:
        """Return the spec of a feed that reads `symbols` from the simulator; `changes` replace whole fields of it."""
        return {
            "venue": "binance_us",
            "endpoints": {
                "websocket": "ws://simulator.venue.svc:9443",
                "rest": "http://simulator.venue.svc:9443",
            },
            "symbols": list(symbols),
            "shardSize": 50,
            "ingestion": {"resources": {"requests": {"cpu": "50m", "memory": "96Mi"}}},
            "kafka": {"bootstrapServers": BROKER, "topics": {"trades": {"partitions": 4}}},
            "storage": {"engine": "postgresql", "dsnSecretName": SECRET},
            "consumers": {"trades": {"replicas": 2}, "bookTicker": {"replicas": 1}},
            "monitoring": {"intervalSeconds": 5},
            **changes,
        }

    def apply_feed(
        self, spec: Object, name: str = FEED, namespace: str = NAMESPACE, database: str = "market"
    ) -> None:
        """Apply a MarketFeed and the Secret that it names, as a user does."""
        url = f"{DSN}/{database}"
        self.kube.apply(
            {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}},
            {
                "apiVersion": "v1",
                "kind": "Secret",
                "metadata": {"name": SECRET, "namespace": namespace},
                "stringData": {"DATABASE_URL": url},
            },
            {
                "apiVersion": "marketfeed.dev/v1alpha1",
                "kind": "MarketFeed",
                "metadata": {"name": name, "namespace": namespace},
                "spec": spec,
            },
        )

    def patch_feed(self, change: Object, name: str = FEED, namespace: str = NAMESPACE) -> None:
        """Change fields of the spec, as ``kubectl patch`` does."""
        patch = json.dumps({"spec": change})
        self.kube.run(
            *("--namespace", namespace, "patch", "marketfeed", name, "--type=merge", f"--patch={patch}")
        )

    def feed(self, name: str = FEED, namespace: str = NAMESPACE) -> Object:
        """Return the MarketFeed from the API server."""
        return self.kube.get(namespace, "marketfeed", name)

    def await_ready(
        self, name: str = FEED, namespace: str = NAMESPACE, *, seconds: float = READY_SECONDS
    ) -> Object:
        """Wait until the feed is ready for its newest spec with no rollout in progress; return the feed."""

        def look() -> Object | None:
            found = self.feed(name, namespace)
            now = conditions(found)
            settled = found["status"].get("observedGeneration") == found["metadata"]["generation"] and all(
                each["observedGeneration"] == found["metadata"]["generation"] for each in now.values()
            )
            ready = now["Ready"]["status"] == "True" and now["Progressing"]["status"] == "False"
            return found if settled and ready else None

        try:
            return until(f"MarketFeed {namespace}/{name} is ready", look, seconds=seconds)
        except AssertionError as late:
            raise AssertionError(
                f"{late}; its conditions: {self._conditions_text(name, namespace)}"
            ) from late

    def _conditions_text(self, name: str, namespace: str) -> str:
        try:
            return json.dumps(self.feed(name, namespace).get("status", {}).get("conditions"))
        except Failed as error:
            return str(error)

    def await_condition(
        self, kind: str, reason: str, name: str = FEED, namespace: str = NAMESPACE, *, seconds: float = 120.0
    ) -> Object:
        """Wait until the condition `kind` has `reason`; return the condition."""

        def look() -> Object | None:
            found = conditions(self.feed(name, namespace)).get(kind)
            return found if found and found["reason"] == reason else None

        return until(f"{namespace}/{name}: {kind} has the reason {reason}", look, seconds=seconds)

    # Pods

    def workers(self, name: str = FEED, namespace: str = NAMESPACE) -> list[Object]:
        """Return the feed's worker pods, by name."""
        return self._of(name, namespace, "app.kubernetes.io/component=ingestion")

    def consumers(self, name: str = FEED, namespace: str = NAMESPACE) -> list[Object]:
        """Return the feed's consumer pods, by name."""
        chosen = "app.kubernetes.io/component in (consumer-trades,consumer-book)"
        return self._of(name, namespace, chosen)

    def operators(self) -> list[Object]:
        """Return the operator's pods."""
        return self.kube.pods(RELEASE, OPERATOR)

    def _of(self, name: str, namespace: str, chosen: str) -> list[Object]:
        found = self.kube.pods(namespace, f"marketfeed.dev/feed={name},{chosen}")
        return sorted(found, key=lambda pod: str(pod["metadata"]["name"]))

    def status_of(self, pod: Object) -> Object:
        """Return a service's /status."""
        metadata = pod["metadata"]
        status: Object = self.kube.ask(metadata["namespace"], f"pods/{metadata['name']}:8000", "/status")
        return status

    # Venue, database, Prometheus

    def ledger(self) -> Object:
        """Return the venue's ledger of sent trades."""
        ledger: Object = self.kube.ask("venue", VENUE, "/control/ledger")
        return ledger

    def symbols(self) -> list[str]:
        """Return every symbol that the venue lists; its ledger has none before the market has opened."""
        listed = self.kube.ask("venue", VENUE, "/api/v3/exchangeInfo")["symbols"]
        return sorted(each["symbol"] for each in listed)

    def fault(self, kind: str, **settings: Any) -> Object:
        """Set one of the simulator's faults."""
        created: Object = self.kube.ask("venue", VENUE, "/control/faults", {"fault": kind, **settings})
        return created

    def clear_faults(self) -> None:
        """Remove every fault."""
        self.kube.run(
            "delete", "--raw", "/api/v1/namespaces/venue/services/simulator:9443/proxy/control/faults"
        )

    def compare(
        self,
        symbols: Iterable[str] | None = None,
        *,
        first_of: Mapping[str, int] | None = None,
        seconds: float = COMPLETE_SECONDS,
    ) -> Comparison:
        """Compare the database with the venue's ledger, and record the result; no trade may be missing or twice.

        Args:
            symbols: symbols that the feed reads now; None for all of the venue's.
            first_of: symbol -> its first trade to compare; by default the first stored one, which is the
                first that the venue ever sent for symbols that were read from the market's opening on.
            seconds: time limit for storing.
        """
        ledger = self.ledger()
        first = first_of if first_of is not None else e2e_ledger.first_stored(self.database)
        made = e2e_ledger.compare(
            self.database, e2e_ledger.bounds_of(ledger, first, symbols), seconds=seconds
        )
        self.note(made)
        made.assert_equal()
        return made

    def note(self, made: Comparison) -> None:
        """Copy the newest comparison into the report."""
        self.journey.sent, self.journey.stored = made.sent, made.stored
        self.journey.missing, self.journey.twice = sum(made.missing.values()), made.twice
        self.journey.candles, self.journey.wrong_candles = made.candles, made.wrong_candles

    def prometheus(self, promql: str) -> list[Object]:
        """Return the current series of `promql`."""
        response = self.kube.ask("monitoring", PROMETHEUS, query("/api/v1/query", query=promql))
        found: list[Object] = response["data"]["result"]
        return found

    def alerts(self) -> set[str]:
        """Return the names of pending and firing alerts."""
        response = self.kube.ask("monitoring", PROMETHEUS, "/api/v1/alerts")
        return {each["labels"]["alertname"] for each in response["data"]["alerts"]}

    def trades_flow(self, *, seconds: float = 120.0) -> float:
        """Wait until new trades of every symbol read are stored; return the seconds until then."""
        begun = time.monotonic()
        expected = {
            symbol: int(each["last_trade_id"])
            for symbol, each in self.ledger()["symbols"].items()
            if each["trades"]
        }

        def look() -> bool:
            stored = e2e_ledger.last_stored(self.database)
            read = expected.keys() & stored.keys()
            return bool(read) and all(stored[symbol] >= expected[symbol] for symbol in read)

        until("all trades sent until now are stored", look, seconds=seconds, every=0.5)
        return time.monotonic() - begun

    def recovered(self, what: str, begun: float) -> None:
        """Record the recovery of `what`; `begun` is a reading of ``time.monotonic``."""
        self.journey.recovery_seconds[what] = round(time.monotonic() - begun, 1)


def conditions(feed: Object) -> dict[str, Object]:
    """Return type -> condition."""
    return {each["type"]: each for each in feed.get("status", {}).get("conditions", [])}


def names(pods: Iterable[Object]) -> set[str]:
    """Return the pods' uids: a pod that was replaced has another one, also under the same name."""
    return {f"{pod['metadata']['name']}/{pod['metadata']['uid']}" for pod in pods}
