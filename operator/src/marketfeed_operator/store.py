"""In-memory cache of the watches: facts by feed. Filled by `handlers`, compared with the cluster by `audit`."""

from collections import defaultdict
from collections.abc import Iterable

from marketfeed_operator.observed import ChildFacts, ChildKey, FeedFacts, Key, PodFacts


class Store:
    """Feeds, their children and their pods. Each change returns the affected feed, or None."""

    def __init__(self) -> None:
        self.feeds: dict[Key, FeedFacts] = {}
        self._children: dict[Key, dict[ChildKey, ChildFacts]] = defaultdict(dict)
        self._feed_of: dict[ChildKey, Key] = {}
        self._pods: dict[Key, dict[str, PodFacts]] = defaultdict(dict)
        self._feed_of_pod: dict[str, Key] = {}

    def children_of(self, feed: Key) -> dict[ChildKey, ChildFacts]:
        """Return a copy of the feed's children."""
        return dict(self._children.get(feed, {}))

    def pods_of(self, feed: Key) -> list[PodFacts]:
        """Return the feed's pods, sorted by name."""
        return sorted(self._pods.get(feed, {}).values(), key=lambda pod: pod.name)

    def all_children(self) -> Iterable[ChildFacts]:
        """Return the children of all feeds."""
        return [child for children in self._children.values() for child in children.values()]

    def put_feed(self, feed: FeedFacts) -> Key | None:
        """Store a feed; return None when only its status has changed, which the operator writes itself."""
        before = self.feeds.get(feed.key)
        if before is not None and _is_older(
            feed.resource_version, before.resource_version, feed.uid == before.uid
        ):
            return None
        self.feeds[feed.key] = feed
        same = before is not None and (before.uid, before.generation) == (feed.uid, feed.generation)
        return None if same else feed.key

    def remove_feed(self, key: Key) -> Key:
        """Remove a feed."""
        self.feeds.pop(key, None)
        return key

    def put_child(self, child: ChildFacts) -> Key | None:
        """Store a child; return None when nothing relevant has changed."""
        before = self._children.get(child.feed, {}).get(child.key)
        if before is not None and _is_older(
            child.resource_version, before.resource_version, child.uid == before.uid
        ):
            return None
        # Its label now names another feed: the former one must create it again.
        if self._feed_of.get(child.key, child.feed) != child.feed:
            self.remove_child(child.key)
        self._children[child.feed][child.key] = child
        self._feed_of[child.key] = child.feed
        unchanged = before is not None and _same(before, child)
        return None if unchanged else child.feed

    def remove_child(self, key: ChildKey, uid: str | None = None) -> Key | None:
        """Remove a child; with `uid` only that object, not a later one under the same name."""
        feed = self._feed_of.get(key)
        if feed is None or (uid is not None and self._children[feed][key].uid != uid):
            return None
        del self._feed_of[key]
        del self._children[feed][key]
        if not self._children[feed]:
            del self._children[feed]
        return feed

    def put_pod(self, pod: PodFacts) -> Key | None:
        """Store a pod; return None when nothing has changed."""
        before = self._pods.get(pod.feed, {}).get(pod.uid)
        if self._feed_of_pod.get(pod.uid, pod.feed) != pod.feed:  # its label now names another feed
            self.remove_pod(pod.uid)
        self._pods[pod.feed][pod.uid] = pod
        self._feed_of_pod[pod.uid] = pod.feed
        return None if before == pod else pod.feed

    def remove_pod(self, uid: str) -> Key | None:
        """Remove a pod."""
        feed = self._feed_of_pod.pop(uid, None)
        if feed is not None:
            self._pods[feed].pop(uid, None)
            if not self._pods[feed]:
                del self._pods[feed]
        return feed

    def pods(self) -> dict[str, Key]:
        """Return uid -> feed of all known pods."""
        return dict(self._feed_of_pod)

    def pod_uids(self) -> set[str]:
        """Return the uids of all known pods."""
        return set(self._feed_of_pod)


def _same(before: ChildFacts, after: ChildFacts) -> bool:
    return ChildFacts(**{**vars(before), "resource_version": ""}) == ChildFacts(
        **{**vars(after), "resource_version": ""}
    )


def _is_older(version: str, known: str, same_object: bool) -> bool:
    """Return whether an event is older than a later response of the API server.

    Resource versions of one kind are increasing numbers (guaranteed since Kubernetes 1.35, true before).
    """
    return same_object and version.isdigit() and known.isdigit() and int(version) < int(known)
