"""Text of others, made fit for a status, a log line and a terminal."""


def printable(text: str, most: int) -> str:
    """Return `text` with everything that a terminal might obey written out, cut after `most` characters.

    What is left prints as it is: no control characters, no line breaks, no bidirectional overrides, no lone surrogates.
    """
    shown = "".join(
        each if each.isprintable() else each.encode("unicode_escape").decode("ascii") for each in text[:most]
    )
    return shown if len(text) <= most and len(shown) <= most else shown[: max(0, most - 1)] + "…"
