"""Field types shared by frames and REST rows."""

from typing import Annotated

import msgspec

from marketfeed_wire import MAX_TIME_US

TimeMs = Annotated[int, msgspec.Meta(ge=0, le=MAX_TIME_US // 1000)]
"""Milliseconds since the Unix epoch, within the range of a message's microseconds."""
