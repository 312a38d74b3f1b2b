"""When each missing trade id of a symbol is asked for over REST. Pure: clock and random numbers are handed in.

Every part of a gap has its own backoff, so that one that cannot be filled delays no other:

    missing      ████████████      ███            ███████████
    requests     │ failed 3x │fresh│ due          │ failed 1x, due in 2 s │

After a response the parts that it answered for and did not settle wait longer; what it did not reach is due at once,
unless it reached nothing of what was asked for. Where it settled nothing of that, the symbol rests for a moment.
"""

import random
from collections.abc import Sequence
from typing import Final, NamedTuple

from marketfeed_workers.stream.id_ranges import IdRange, total, within

SETTLE_SECONDS: Final = 0.1
"""Two connections that overlap bring trades a little out of order: this much is left to the stream itself."""
FIRST_RETRY_SECONDS: Final = 0.5
PAUSE_SECONDS: Final = 0.5
"""For so long nothing of a symbol is asked for after a response that settled nothing of what was asked for, and for
twice that after the next: the venue most likely lags, and many small gaps would use up the request weight. What was
never asked for rests after first requests only: a retry delays none."""
MAX_RETRY_SECONDS: Final = 3600.0
"""Between requests for ids that the venue answered for and did not have."""
MAX_UNANSWERED_SECONDS: Final = 30.0
"""Between requests that got no answer: soon after REST is back everything is asked for again."""
_MAX_DOUBLINGS: Final = 20


class Request(NamedTuple):
    """Ids to be asked for.

    Attributes:
        failures: how often a response did not have them.
        unanswered: how often, since then, there was no response.
        due: when they may be asked for.
        requested: when something of the same gap was last asked for; before the first time, 0.
    """

    ids: IdRange
    failures: int
    unanswered: int
    due: float
    requested: float

    @property
    def is_retry(self) -> bool:
        """Whether it has failed before."""
        return bool(self.failures or self.unanswered)


class GapSchedule:
    """The requests for the missing ids of one symbol.

    Attributes:
        settle_seconds: how long what is newly missing is left to the stream.
    """

    def __init__(self, rng: random.Random) -> None:
        self.settle_seconds = SETTLE_SECONDS
        self._rng = rng
        self._requests: list[Request] = []
        self._empty_responses = 0
        self._unsuccessful = {False: 0, True: 0}
        self._paused_until = {False: 0.0, True: 0.0}
        """Whether after retries -> until when."""

    def update(self, missing: Sequence[IdRange], now: float) -> list[Request]:
        """What is to be asked for, in order of id: `missing` and nothing else, each part as it was planned before.

        Parts that are new are due in a moment. `missing` is sorted.
        """
        planned: list[Request] = []
        old, at = self._requests, 0
        for first, last in missing:
            start = first
            while at < len(old) and old[at].ids.last < start:
                at += 1
            while start <= last:
                if at == len(old) or old[at].ids.first > last:
                    planned.append(self._fresh(start, last, now))
                    break
                if old[at].ids.first > start:
                    planned.append(self._fresh(start, old[at].ids.first - 1, now))
                    start = old[at].ids.first
                end = min(last, old[at].ids.last)
                planned.append(old[at]._replace(ids=IdRange(start, end)))
                start = end + 1
                if old[at].ids.last <= last:
                    at += 1
        self._requests = planned
        return planned

    def on_response(
        self,
        request: Request,
        covered: IdRange | None,
        requested: IdRange | None,
        missing: Sequence[IdRange],
        now: float,
    ) -> None:
        """A response came: it answered for `covered`; where that is None it had nothing, having been asked for `requested`.

        `missing`: what is missing now that the response was used.
        """
        # Where it was about other gaps alone, what was asked for is no nearer, and is not asked for again at once.
        missed = covered is not None and not within([request.ids], covered)
        if covered is None:
            # Of a long gap the next part is tried at once, in growing strides: a venue that has nothing of its
            # beginning, and nothing of any of it, costs a few requests and not one a page.
            size = (
                requested.size << min(self._empty_responses, _MAX_DOUBLINGS)
                if requested is not None
                else request.ids.size
            )
            covered = IdRange(request.ids.first, min(request.ids.last, request.ids.first + size - 1))
            self._empty_responses += 1
        else:
            self._empty_responses = 0
        planned: list[Request] = []
        for each in self.update(missing, now):
            before, inside, behind = _cut(each, covered)
            touched = each.ids.first <= request.ids.last and each.ids.last >= request.ids.first
            if touched and missed:
                planned.append(self._later(each, now, is_due=True))
                continue
            planned += [part._replace(requested=now) if touched else part for part in before]
            planned += [self._later(part, now, is_due=touched or part.due <= now) for part in inside]
            planned += [part._replace(requested=now) if touched else part for part in behind]
        self._requests = self._rested(planned, request, requested, missing, now)

    def _rested(
        self,
        planned: list[Request],
        request: Request,
        requested: IdRange | None,
        missing: Sequence[IdRange],
        now: float,
    ) -> list[Request]:
        """`planned`, none of it due for a moment where a response settled nothing of what was asked for."""
        is_stride = requested is not None and requested.size < request.ids.size
        if is_stride or total(within(missing, request.ids)) < request.ids.size:
            self._unsuccessful[request.is_retry] = 0
            return planned
        times = self._unsuccessful[request.is_retry] = min(self._unsuccessful[request.is_retry] + 1, 2)
        self._paused_until[request.is_retry] = now + times * PAUSE_SECONDS
        first, later = self._paused_until[False], max(self._paused_until.values())
        return [part._replace(due=max(part.due, later if part.is_retry else first)) for part in planned]

    def on_failure(self, request: Request, missing: Sequence[IdRange], now: float) -> None:
        """No response came."""
        self._requests = [
            each._replace(
                unanswered=each.unanswered + 1,
                due=now + self._delay(each.unanswered, MAX_UNANSWERED_SECONDS),
                requested=now,
            )
            if each.ids.first <= request.ids.last and each.ids.last >= request.ids.first
            else each
            for each in self.update(missing, now)
        ]

    def _later(self, request: Request, now: float, *, is_due: bool) -> Request:
        """Once more after a delay, which grows only where its own time had come."""
        failures = request.failures + 1 if is_due else max(1, request.failures)
        delay = self._delay(failures - 1, MAX_RETRY_SECONDS)
        return request._replace(failures=failures, unanswered=0, due=now + delay, requested=now)

    def _fresh(self, first: int, last: int, now: float) -> Request:
        due = max(now + self.settle_seconds, self._paused_until[False])
        return Request(IdRange(first, last), 0, 0, due, 0.0)

    def _delay(self, failures: int, cap: float) -> float:
        return min(cap, FIRST_RETRY_SECONDS * 2.0 ** min(failures, _MAX_DOUBLINGS)) * self._rng.uniform(
            0.5, 1.0
        )


def _cut(request: Request, frame: IdRange) -> tuple[list[Request], list[Request], list[Request]]:
    """The parts of `request` before, inside and behind `frame`; each list holds one or none."""
    first, last = request.ids
    parts = (
        IdRange(first, min(last, frame.first - 1)),
        IdRange(max(first, frame.first), min(last, frame.last)),
        IdRange(max(first, frame.last + 1), last),
    )
    before, inside, behind = ([request._replace(ids=part)] if part.size > 0 else [] for part in parts)
    return before, inside, behind
