"""PostgreSQL's COPY text format, as far as our rows need it.

https://www.postgresql.org/docs/current/sql-copy.html#id-1.9.3.55.9.2: columns parted by tabs, NULL as \\N, a
backslash doubled. Names are printable and without spaces (decode.py sees to that) and numbers are digits, so
the backslash is all there is to escape.
"""

from typing import Final

NULL: Final = "\\N"


def prefix(venue: str, symbol: str, id_series: int) -> str:
    """The leading columns of a row, each ended by a tab."""
    names = "".join(name.replace("\\", "\\\\") + "\t" for name in (venue, symbol))
    return f"{names}{id_series}\t"
