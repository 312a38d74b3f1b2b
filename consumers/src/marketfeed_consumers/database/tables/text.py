"""PostgreSQL's COPY text format, as far as the rows need it.

https://www.postgresql.org/docs/current/sql-copy.html#id-1.9.3.55.9.2: columns separated by tabs, NULL as \\N, a
backslash doubled. Names are printable and without spaces (validated by the codec) and numbers are digits, so only the
backslash is escaped.
"""

from typing import Final

NULL: Final = "\\N"


def prefix(venue: str, symbol: str, id_series: int) -> str:
    """Return the leading columns of a row, each ended by a tab."""
    names = "".join(name.replace("\\", "\\\\") + "\t" for name in (venue, symbol))
    return f"{names}{id_series}\t"
