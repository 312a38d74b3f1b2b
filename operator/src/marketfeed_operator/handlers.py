"""kopf integration, the only module that imports it. Its watches fill the store and add keys to the queue.

Indexing functions fill the store, because kopf runs no event handler before the first list of every kind is indexed:
so a feed is reconciled only when its children are known. They index nothing. Only stateless handlers are used: kopf
writes nothing to any object.
"""

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import kopf

from marketfeed_operator.cluster import FEEDS, Credentials
from marketfeed_operator.engine.audit import OURS
from marketfeed_operator.engine.watch_session import WATCH_PAGE, watch_session
from marketfeed_operator.facts import child_facts, feed_facts, pod_facts
from marketfeed_operator.kinds import POD, WATCHED, Kind
from marketfeed_operator.names import FIELD_MANAGER
from marketfeed_operator.observed import Key
from marketfeed_operator.store import Store
from marketfeed_operator.trim import DIGEST

LOGIN_LIFETIME: Final = timedelta(minutes=10)
"""Well below the time from the refresh of a pod's token to the expiry of the old one."""

Changed = Callable[[Key], Awaitable[None]]


def registry(
    store: Store,
    changed: Changed,
    credentials: Callable[[], Awaitable[Credentials]],
    seen: Callable[[str], None],
) -> kopf.OperatorRegistry:
    """Return handlers that keep `store` in sync with the cluster and report each affected feed.

    Args:
        seen: called with a watch's path on each response of the API server there.
    """
    handlers = kopf.OperatorRegistry()

    # Not kopf's login handlers: in a pod they use a DNS name, whereas our requests use the address of the
    # environment.
    @kopf.on.login(registry=handlers, id="as-our-requests")
    async def login(**_: Any) -> kopf.AiohttpSession:
        given = await credentials()
        return kopf.AiohttpSession(
            server=given.server,
            aiohttp_session=watch_session(given, seen),
            expiration=datetime.now(UTC) + LOGIN_LIFETIME,
        )

    _watch_feeds(handlers, store, changed)
    _watch_pods(handlers, store, changed)
    for kind in WATCHED:
        _watch_children(handlers, store, changed, kind)
    return handlers


class _NoChanges(kopf.DiffBaseStorage):
    """Diff base for kopf's change handlers, of which there are none.

    kopf's default copies every object three times per event, half of the operator's CPU time.
    """

    def build(self, **_: Any) -> kopf.BodyEssence:
        return kopf.BodyEssence()

    def fetch(self, **_: Any) -> kopf.BodyEssence | None:
        return None

    def store(self, **_: Any) -> None:
        raise AssertionError("kopf must not write to objects: all handlers are stateless")


def settings(inactivity_seconds: float) -> kopf.OperatorSettings:
    """Return kopf's settings: quiet, level-triggered, without its own peering."""
    chosen = kopf.OperatorSettings()
    chosen.peering.standalone = (
        True  # leader election uses a Lease; a peering object must not pause the operator
    )
    chosen.scanning.disabled = True  # the watched kinds always exist
    chosen.posting.enabled = False
    chosen.process.ultimate_exiting_timeout = None  # the operator handles shutdown itself
    chosen.networking.request_timeout = 60
    chosen.networking.connect_timeout = 10
    # kopf's default delays grow to 21 s, which delays a watch after an error. When these are used up its watches end,
    # and restart with a full list.
    chosen.networking.error_backoffs = (1, 1, 2, 3, *itertools.repeat(5, 8))
    chosen.watching.inactivity_timeout = inactivity_seconds
    chosen.queueing.worker_limit = 200
    chosen.watching.chunk_size = WATCH_PAGE
    chosen.persistence.diffbase_storage = _NoChanges()
    for kind in (*WATCHED, POD):
        chosen.watching.label_selectors[_where(kind)] = OURS
    return chosen


def _where(kind: Kind) -> tuple[str, str, str]:
    group, _, version = kind.api_version.rpartition("/")
    return (group, version, kind.plural)


def _watch_feeds(handlers: kopf.OperatorRegistry, store: Store, changed: Changed) -> None:
    touched: dict[str, Key] = {}

    @kopf.index(*_where(FEEDS), id="feeds-seen", registry=handlers)
    async def seen(body: kopf.Body, **_: Any) -> None:
        facts = feed_facts(body)
        if (key := store.put_feed(facts)) is not None:
            touched[facts.uid] = key

    @kopf.on.event(*_where(FEEDS), id="feeds", registry=handlers)
    async def event(event: Any, body: kopf.Body, **_: Any) -> None:
        metadata = body["metadata"]
        uid: str = metadata["uid"]
        key = touched.pop(uid, None)
        if event["type"] == "DELETED":
            key = (metadata["namespace"], metadata["name"])
            # The name may belong to a new feed by the time of this event.
            if (known := store.feeds.get(key)) is not None and known.uid == uid:
                store.remove_feed(key)
        if key is not None:
            await changed(key)


def _watch_children(handlers: kopf.OperatorRegistry, store: Store, changed: Changed, kind: Kind) -> None:
    touched: dict[str, Key] = {}

    @kopf.index(*_where(kind), id=f"{kind.plural}-seen", registry=handlers)
    async def seen(body: kopf.Body, **_: Any) -> None:
        facts = child_facts(kind.kind, body, body.get(DIGEST, ""))
        if facts is not None and (feed := store.put_child(facts)) is not None:
            touched[facts.uid] = feed

    @kopf.on.event(*_where(kind), id=kind.plural, registry=handlers)
    async def event(event: Any, body: kopf.Body, **_: Any) -> None:
        metadata = body["metadata"]
        feed = touched.pop(metadata["uid"], None)
        if event["type"] == "DELETED":
            feed = store.remove_child((kind.kind, metadata["namespace"], metadata["name"]), metadata["uid"])
        if feed is not None:
            await changed(feed)


def _watch_pods(handlers: kopf.OperatorRegistry, store: Store, changed: Changed) -> None:
    touched: dict[str, Key] = {}

    @kopf.index(*_where(POD), id="pods-seen", registry=handlers)
    async def seen(body: kopf.Body, **_: Any) -> None:
        facts = pod_facts(body)
        if facts is not None and (feed := store.put_pod(facts)) is not None:
            touched[facts.uid] = feed

    @kopf.on.event(*_where(POD), id="pods", registry=handlers)
    async def event(event: Any, body: kopf.Body, **_: Any) -> None:
        uid = body["metadata"]["uid"]
        feed = touched.pop(uid, None)
        if event["type"] == "DELETED":
            feed = store.remove_pod(uid)
        if feed is not None:
            await changed(feed)


def paths(namespace: str | None) -> list[str]:
    """Return the paths of all lists and watches of a scope."""
    return [kind.path(namespace) for kind in (FEEDS, POD, *WATCHED)]


async def watch(
    handlers: kopf.OperatorRegistry,
    namespace: str | None,
    *,
    inactivity_seconds: float,
    spawned: Callable[[], None],
) -> None:
    """Watch one namespace, or all of them, until kopf gives up or the task is cancelled.

    Args:
        inactivity_seconds: inactivity after which a stream is reconnected.
        spawned: called once kopf is set up; it has replaced the handlers of SIGTERM and SIGINT by then.
    """
    tasks = await kopf.spawn_tasks(
        registry=handlers,
        settings=settings(inactivity_seconds),
        # Otherwise kopf resolves the user name, which a container user does not have. Its type is not exported.
        identity=FIELD_MANAGER,  # type: ignore[arg-type]
        standalone=True,
        clusterwide=namespace is None,
        namespaces=() if namespace is None else (namespace,),
    )
    spawned()
    # Not kopf.run_tasks: at its end it cancels all tasks of the loop that were created since.
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
    for task in done:
        task.result()
