"""ServiceAccount of the pods: no permissions and no token."""

from marketfeed_operator.desired.base import Child, Feed, child
from marketfeed_operator.kinds import SERVICE_ACCOUNT
from marketfeed_operator.names import account_name


def service_account(feed: Feed) -> Child | None:
    """Return the ServiceAccount of the feed's pods; None when the feed uses an existing one."""
    declared = feed.spec.service_account
    if declared is not None and declared.name is not None:
        return None
    return child(
        feed, SERVICE_ACCOUNT, account_name(feed.name), "account", {"automountServiceAccountToken": False},
        annotations=declared.annotations if declared is not None else None,
    )  # fmt: skip


def pods_account(feed: Feed) -> str:
    """Return the name of the ServiceAccount of the pods."""
    declared = feed.spec.service_account
    return (declared.name if declared is not None else None) or account_name(feed.name)
