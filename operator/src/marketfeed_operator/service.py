"""Lifecycle of the operator: connect, acquire the lease, lead, release."""

import asyncio
import random
import signal
import socket
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

from prometheus_client import CollectorRegistry

from marketfeed_operator.cluster import FEEDS, Cluster, connected
from marketfeed_operator.engine.audit import Audit
from marketfeed_operator.engine.leader import LeaderElection
from marketfeed_operator.engine.metrics import Metrics
from marketfeed_operator.errors import ApiError, NotFound
from marketfeed_operator.health import OperatorHealth
from marketfeed_operator.leadership import Leadership, Task
from marketfeed_operator.names import GROUP
from marketfeed_operator.settings import OperatorSettings
from marketfeed_operator.store import Store
from marketfeed_service import logs
from marketfeed_service.backoff import delays
from marketfeed_service.errors import StartupError
from marketfeed_service.health import HealthServer

log = logs.get(__name__)

HEARTBEAT_SECONDS: Final = 0.5
NAMESPACE_FILE: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
LEASE: Final = "marketfeed-operator"


async def run(settings: OperatorSettings) -> int:
    """Run until SIGTERM or SIGINT (0), or until the lease or the watches are lost (1).

    Raises:
        StartupError: no response from the API server within START_DEADLINE_SECONDS, or a refusal.
    """
    stop = asyncio.Event()
    _stop_on_signals(stop)
    registry = CollectorRegistry()
    metrics = Metrics(registry)
    async with connected(metrics) as cluster:
        operator = _Operator(settings, cluster, metrics)
        with HealthServer(
            operator.health, registry, host=settings.metrics_host, port=settings.metrics_port
        ) as server:
            server.write_port(settings.metrics_port_file)
            log.info("operator started", identity=operator.identity, metrics_port=server.port)
            return await operator.run(stop)


def _own_namespace() -> str:
    try:
        return NAMESPACE_FILE.read_text().strip()
    except OSError:  # not in a cluster
        return "default"


def _stop_on_signals(stop: asyncio.Event) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)


class _Operator:
    """Components of a running operator."""

    def __init__(self, settings: OperatorSettings, cluster: Cluster, metrics: Metrics) -> None:
        self._settings = settings
        self._cluster = cluster
        self._metrics = metrics
        self.identity = settings.operator_name or f"{socket.gethostname()}-{uuid4().hex[:8]}"
        self._namespace = namespace = settings.operator_namespace or _own_namespace()
        self._store = Store()
        self._rng = random.Random()  # noqa: S311 - jitter, not a secret
        self._election = (
            LeaderElection(
                cluster,
                namespace=namespace,
                name=LEASE,
                identity=self.identity,
                lease_seconds=settings.lease_seconds,
                retry_seconds=settings.lease_retry_seconds,
                serves=",".join(sorted(settings.watch_namespaces)) or "all namespaces",
                now=time.monotonic,
            )
            if settings.leader_election
            else None
        )
        self.health = OperatorHealth(
            self.identity, self._election, self._store, settings.watch_deadline_seconds
        )

    async def run(self, stop: asyncio.Event) -> int:
        """See `run` of the module."""
        heartbeat = asyncio.create_task(self._heartbeat(), name="heartbeat")
        try:
            await self._wait_for_api_server(stop)
            if self._election is not None and not stop.is_set():
                await _first(stop.wait(), self._election.acquire())
            if stop.is_set():
                return 0
            return await self._lead(stop)
        finally:
            self.health.stopping = True
            self.health.leadership = None
            if self._election is not None and self._election.leading:
                await self._election.release()
            heartbeat.cancel()
            log.info("operator stopped")

    async def _heartbeat(self) -> None:
        while True:
            self.health.last_heartbeat = time.monotonic()
            await asyncio.sleep(HEARTBEAT_SECONDS)

    async def _wait_for_api_server(self, stop: asyncio.Event) -> None:
        """Return when the API server responds and serves MarketFeeds.

        A namespace that cannot be read does not prevent the others from being served: see `engine.scopes`.
        """
        deadline = time.monotonic() + self._settings.start_deadline_seconds
        for delay in delays(0.5, 5, self._rng):
            try:
                await self._probe()
            except ApiError as error:
                if time.monotonic() + delay > deadline:
                    raise StartupError(
                        f"MarketFeeds cannot be read within {self._settings.start_deadline_seconds:g} s: {error}. "
                        "Are the CRD (manifests/crd.yaml) and the operator's roles applied?"
                    ) from error
                log.warning("waiting for the API server", reason=str(error))
            else:
                return
            await _first(stop.wait(), asyncio.sleep(delay))
            if stop.is_set():
                return

    async def _probe(self) -> None:
        """Read one MarketFeed of any served namespace.

        Raises:
            ApiError: none of the namespaces can be read.
        """
        failure: ApiError | None = None
        for namespace in self._settings.watch_namespaces or (None,):
            try:
                await self._cluster.get(FEEDS.path(namespace), limit=1)
            except ApiError as error:
                failure = failure or error
            else:
                return
        if failure is not None:
            raise failure

    async def _lead(self, stop: asyncio.Event) -> int:
        """Serve all feeds. Return the exit code."""

        def restore_signal_handlers() -> None:
            _stop_on_signals(stop)  # the operator handles shutdown: watches first, the lease last

        leadership = Leadership(
            self._settings, self._cluster, self._store, self._metrics,
            identity=self.identity, installation=f"{self._namespace}/{LEASE}", rng=self._rng,
            spawned=restore_signal_handlers,
        )  # fmt: skip
        self._metrics.leader.set(1)
        await self._remove_canary()
        await self._learn_kinds(leadership.audit, stop)
        tasks: list[Task] = [("stop", stop.wait()), *leadership.tasks()]
        if self._election is not None:
            tasks.append(("lease", self._election.hold()))
        self.health.leadership = leadership
        ended = await _first_of(tasks)
        self._metrics.leader.set(0)
        if ended == "stop":
            return 0
        log.error("leadership lost", ended=ended)
        return 1

    async def _remove_canary(self) -> None:
        """Delete the canary MarketFeed of releases before 0.2."""
        name = "marketfeed-canary"
        try:
            found = await self._cluster.get(FEEDS.path(self._namespace, name))
            if (found["metadata"].get("labels") or {}).get(f"{GROUP}/canary") == "true":
                await self._cluster.delete(FEEDS, self._namespace, name, uid=found["metadata"]["uid"])
                log.info("canary of an older release deleted", namespace=self._namespace)
        except NotFound:
            return
        except ApiError as error:
            log.warning("canary of an older release not deleted", reason=str(error))

    async def _learn_kinds(self, audit: Audit, stop: asyncio.Event) -> None:
        for delay in delays(0.5, 10, self._rng):
            try:
                await audit.learn_kinds()
            except ApiError as error:
                log.warning("optional kinds not discovered", reason=str(error))
            else:
                return
            await _first(stop.wait(), asyncio.sleep(delay))
            if stop.is_set():
                return


async def _first(*coroutines: Coroutine[Any, Any, object]) -> None:
    """Return when one of them has finished; cancel the others."""
    await _first_of([(str(number), each) for number, each in enumerate(coroutines)])


async def _first_of(coroutines: list[Task]) -> str:
    """Return the name of the first that finished; cancel the others and wait for them.

    Raises:
        the exception of the first.
    """
    tasks = [asyncio.create_task(each, name=name) for name, each in coroutines]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    first = next(task for task in tasks if task in done)
    await first
    return first.get_name()
