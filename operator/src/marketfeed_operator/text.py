"""Sanitise untrusted text for a status, a log line and a terminal."""


def printable(text: str, most: int) -> str:
    """Return `text` with non-printable characters escaped, truncated to `most` characters.

    The result has no control characters, line breaks, bidirectional overrides or lone surrogates.
    """
    shown = "".join(
        each if each.isprintable() else each.encode("unicode_escape").decode("ascii") for each in text[:most]
    )
    return shown if len(text) <= most and len(shown) <= most else shown[: max(0, most - 1)] + "…"
