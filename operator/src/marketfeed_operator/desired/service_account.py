"""ServiceAccount: an identity without rights and without a token."""

from marketfeed_operator.desired.base import Child, Feed, child
from marketfeed_operator.kinds import SERVICE_ACCOUNT
from marketfeed_operator.names import account_name


def service_account(feed: Feed) -> Child | None:
    """The account that every pod of the feed runs as; None when the feed names one that is there."""
    declared = feed.spec.service_account
    if declared is not None and declared.name is not None:
        return None
    return child(
        feed, SERVICE_ACCOUNT, account_name(feed.name), "account", {"automountServiceAccountToken": False},
        annotations=declared.annotations if declared is not None else None,
    )  # fmt: skip


def pods_account(feed: Feed) -> str:
    """Name of the account that the pods run as."""
    declared = feed.spec.service_account
    return (declared.name if declared is not None else None) or account_name(feed.name)
