"""kopf: the only module that knows it. Its watches fill the store and add keys to the queue; nothing else.

Indexing functions fill the store, because kopf lets no event handler run before every kind's first list was
indexed: so no feed is looked at before all its children are known. They index nothing. Only handlers without state
are used: kopf writes nothing to any object.
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
"""Well below what a kubelet leaves between the renewal of a pod's token and the end of the old one."""

Changed = Callable[[Key], Awaitable[None]]


def registry(
    store: Store,
    changed: Changed,
    credentials: Callable[[], Awaitable[Credentials]],
    seen: Callable[[str], None],
) -> kopf.OperatorRegistry:
    """Handlers that keep `store` as the cluster is, and tell of each feed that something changed for.

    Args:
        seen: is told of a watch's path whenever the API server answers there.
    """
    handlers = kopf.OperatorRegistry()

    # Not kopf's own logins: in a pod they go by a name in DNS, where our requests go to the address we are given.
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
    """What kopf compares an object with to call handlers of changes: nothing, as we have none.

    Its own way copies every object thrice for each event, which was half of all that the operator computed.
    """

    def build(self, **_: Any) -> kopf.BodyEssence:
        return kopf.BodyEssence()

    def fetch(self, **_: Any) -> kopf.BodyEssence | None:
        return None

    def store(self, **_: Any) -> None:
        raise AssertionError("kopf writes nothing to any object: there are handlers without state only")


def settings(inactivity_seconds: float) -> kopf.OperatorSettings:
    """How kopf is to behave: quiet, level-triggered, ours only."""
    chosen = kopf.OperatorSettings()
    chosen.peering.standalone = True  # we elect by a Lease; a stray peering object must not pause us
    chosen.scanning.disabled = True  # the kinds that are watched are always there
    chosen.posting.enabled = False
    chosen.process.ultimate_exiting_timeout = None  # ending is our own affair
    chosen.networking.request_timeout = 60
    chosen.networking.connect_timeout = 10
    # kopf's own delays grow to 21 s, by which a watch would be late after a fault. When these are used up its watches
    # end, and are started again with a list of everything.
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
            # Another feed may have taken the name before we heard that this one has gone.
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
    """The path of every list and watch of a scope."""
    return [kind.path(namespace) for kind in (FEEDS, POD, *WATCHED)]


async def watch(
    handlers: kopf.OperatorRegistry,
    namespace: str | None,
    *,
    inactivity_seconds: float,
    spawned: Callable[[], None],
) -> None:
    """Watch one namespace, or all of them, until kopf gives up or this is cancelled.

    Args:
        inactivity_seconds: silence after which a watch's stream is opened anew.
        spawned: called once kopf has set itself up; it takes SIGTERM and SIGINT for itself by then.
    """
    tasks = await kopf.spawn_tasks(
        registry=handlers,
        settings=settings(inactivity_seconds),
        # Else kopf asks for the user's name, and a container's user has none. Its type is not handed out.
        identity=FIELD_MANAGER,  # type: ignore[arg-type]
        standalone=True,
        clusterwide=namespace is None,
        namespaces=() if namespace is None else (namespace,),
    )
    spawned()
    # Not kopf.run_tasks: when it ends it cancels every task of the loop that was not there when it began.
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
    for task in done:
        task.result()
