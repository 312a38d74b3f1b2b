"""Interface between a market (generated or recorded) and the driver that paces it.

Apart from both, so that neither imports the other.
"""

from typing import Protocol

from marketfeed_simulator.frames import Frame


class Source(Protocol):
    """A market. Times are market time, in microseconds since the epoch."""

    @property
    def streams(self) -> frozenset[str]:
        """Streams that have frames."""

    @property
    def start_us(self) -> int:
        """Start time."""

    @property
    def finished(self) -> bool:
        """Whether the last frame has been pulled."""

    def pull(self, until_us: int | None, most: int) -> list[Frame]:
        """Return the next frames up to and including `until_us` (None: no limit), at most `most`."""

    def next_us(self) -> int | None:
        """Return when the next frame is due; None while there is none."""
