"""Drop, duplicate, reorder and corrupt: faults of the frames sent to one connection. No I/O."""

import random
from fnmatch import fnmatchcase

import msgspec

from marketfeed_simulator.faults import Corrupt, Drop, Duplicate, FrameFault, Reorder
from marketfeed_simulator.frames import Frame, text_frame


class ActiveFrameFault:
    """A frame fault that has begun.

    Attributes:
        hits: number of frames that were hit.
    """

    def __init__(self, fault: FrameFault) -> None:
        self.fault = fault
        self.hits = 0
        self._rng = random.Random(fault.seed)  # noqa: S311 - a fault that can be repeated, not a secret
        self._matching: dict[str, bool] = {}

    @property
    def exhausted(self) -> bool:
        """Whether `fault.count` frames were hit."""
        return self.fault.count is not None and self.hits >= self.fault.count

    def strikes(self, stream: str, connections: list[int]) -> bool:
        """Return whether the next frame of `stream` to `connections` is hit, and count it."""
        if self.exhausted or not connections or not self._matches(stream):
            return False
        if self.fault.connection is not None and self.fault.connection not in connections:
            return False
        if self.fault.chance < 1 and self._rng.random() >= self.fault.chance:
            return False
        self.hits += 1
        return True

    def _matches(self, stream: str) -> bool:
        known = self._matching.get(stream)
        if known is None:
            patterns = self.fault.streams
            known = not patterns or any(fnmatchcase(stream, pattern) for pattern in patterns)
            self._matching[stream] = known
        return known


class DelayedFrames:
    """Frames of one connection that a reorder fault delays."""

    def __init__(self) -> None:
        self._held: list[tuple[int, bytes]] = []

    def __bool__(self) -> bool:
        return bool(self._held)

    def hold(self, wire: bytes, distance: int) -> None:
        """Delay `wire` until `distance` more frames have been sent."""
        self._held.append((distance, wire))

    def release(self) -> list[bytes]:
        """Count one more sent frame and return the frames that are due."""
        if not self._held:
            return []
        self._held = [(left - 1, wire) for left, wire in self._held]
        due = [wire for left, wire in self._held if left <= 0]
        self._held = [(left, wire) for left, wire in self._held if left > 0]
        return due

    def flush(self) -> list[bytes]:
        """Return all delayed frames, so that none is lost when no further frame comes."""
        rest = [wire for _, wire in self._held]
        self._held = []
        return rest


def apply_faults(frame: Frame, variant: int, struck: list[FrameFault], held: DelayedFrames) -> list[bytes]:
    """Return the bytes to send instead of `frame`: the faults `struck` applied in order."""
    sent = [frame.wire(variant)]
    for fault in struck:
        match fault:
            case Drop():
                sent = []
            case Duplicate():
                sent = sent * (fault.copies + 1)
            case Corrupt():
                sent = [text_frame(corrupted(frame.text(variant), fault.how)) for _ in sent]
            case Reorder():
                for wire in sent:
                    held.hold(wire, fault.distance)
                sent = []
    return sent + held.release() if sent else sent


def corrupted(text: bytes, how: str) -> bytes:
    """Return `text` corrupted as `Corrupt.how` says."""
    match how:
        case "truncated":
            return text[: len(text) // 2]
        case "not_json":
            return b"upstream request timeout"
        case "not_utf8":
            return text[:-1] + b"\xff\xfe}"
    message = msgspec.json.decode(text)
    payload = message.get("data", message)
    number, price = ("t", "p") if "t" in payload else ("u", "b")
    match how:
        case "missing_field":
            payload.pop(number, None)
        case "wrong_type":
            payload[number] = str(payload.get(number, ""))
        case _:
            payload[price] = "NaN"
    return msgspec.json.encode(message)
