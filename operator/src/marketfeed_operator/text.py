"""Text of a status, a log line and a terminal: sanitised, and times in the formats of the Kubernetes API."""

from datetime import UTC, datetime


def printable(text: str, most: int) -> str:
    """Return `text` with non-printable characters escaped, truncated to `most` characters.

    The result has no control characters, line breaks, bidirectional overrides or lone surrogates.
    """
    shown = "".join(
        each if each.isprintable() else each.encode("unicode_escape").decode("ascii") for each in text[:most]
    )
    return shown if len(text) <= most and len(shown) <= most else shown[: max(0, most - 1)] + "…"


def api_time(moment: datetime) -> str:
    """Return a time as metav1.Time: UTC, in seconds."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def api_time_now() -> str:
    """Return the current time as metav1.MicroTime: UTC, in microseconds."""
    return datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
