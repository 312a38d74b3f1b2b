"""What the venue's frames and REST rows have alike."""

from typing import Annotated

import msgspec

from marketfeed_wire import MAX_TIME_US

TimeMs = Annotated[int, msgspec.Meta(ge=0, le=MAX_TIME_US // 1000)]
"""A time in milliseconds since the Unix epoch that a message can hold in microseconds."""
