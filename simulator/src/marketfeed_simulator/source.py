"""Where frames come from: the seam between a market (generated or recorded) and the driver that sends it in time."""

from typing import Protocol

from marketfeed_simulator.frames import Frame


class Source(Protocol):
    """A market. Times are its own, in microseconds since the epoch."""

    @property
    def streams(self) -> frozenset[str]:
        """The streams it has frames for."""

    @property
    def start_us(self) -> int:
        """The time at which it begins."""

    @property
    def finished(self) -> bool:
        """Whether its last frame has been pulled."""

    def pull(self, until_us: int | None, most: int) -> list[Frame]:
        """The next frames up to and with `until_us` (None: whatever comes next), at most `most` of them."""

    def next_us(self) -> int | None:
        """When the next frame is due; None when there is none at present."""
