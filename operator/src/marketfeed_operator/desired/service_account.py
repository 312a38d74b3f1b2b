"""ServiceAccount: an identity without rights and without a token."""

from marketfeed_operator.desired.base import Child, Feed, child
from marketfeed_operator.kinds import SERVICE_ACCOUNT


def service_account(feed: Feed) -> Child:
    """The account that every pod of the feed runs as."""
    return child(feed, SERVICE_ACCOUNT, feed.name, "account", {"automountServiceAccountToken": False})
