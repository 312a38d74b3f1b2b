"""Schedule of the requests for missing trade ids of a symbol. Pure: clock and random numbers are arguments.

Each part of a gap has its own backoff, so that one that cannot be filled delays no other:

    missing      ████████████      ███            ███████████
    requests     │ failed 3x │fresh│ due          │ failed 1x, due in 2 s │

After a response the parts that it covered and did not fill back off; parts that it did not cover are due at once,
unless it covered none of the request. After a response that filled nothing the whole symbol pauses.
"""

import random
from collections.abc import Sequence
from typing import Final, NamedTuple

from marketfeed_service.id_ranges import IdRange, total, within

SETTLE_SECONDS: Final = 0.1
"""Delay before the first request: overlapping connections deliver trades slightly out of order."""
FIRST_RETRY_SECONDS: Final = 0.5
PAUSE_SECONDS: Final = 0.5
"""Pause of a symbol after a response that filled nothing of the request, doubled after the next one: REST probably
lags, and many small gaps would use up the request weight. First requests pause only after first requests, not after
retries."""
MAX_RETRY_SECONDS: Final = 3600.0
"""Maximum backoff after responses without the ids."""
MAX_UNANSWERED_SECONDS: Final = 30.0
"""Maximum backoff without a response: after an outage of REST backfill resumes soon."""
_MAX_DOUBLINGS: Final = 20


class Request(NamedTuple):
    """A scheduled request for ids.

    Attributes:
        failures: number of responses without the ids.
        unanswered: number of requests without a response since then.
        due: time of the next request.
        requested: time of the last request for any part of the same gap; 0 without one.
    """

    ids: IdRange
    failures: int
    unanswered: int
    due: float
    requested: float

    @property
    def is_retry(self) -> bool:
        """Whether a request for the ids has failed before."""
        return bool(self.failures or self.unanswered)


class GapSchedule:
    """The requests for the missing ids of one symbol.

    Attributes:
        settle_seconds: delay before the first request for missing ids.
    """

    def __init__(self, rng: random.Random) -> None:
        self.settle_seconds = SETTLE_SECONDS
        self._rng = rng
        self._requests: list[Request] = []
        self._empty_responses = 0
        self._unsuccessful = {False: 0, True: 0}
        self._paused_until = {False: 0.0, True: 0.0}
        """Whether after retries -> end of the pause."""

    def update(self, missing: Sequence[IdRange], now: float) -> list[Request]:
        """Return the requests for exactly the sorted `missing` ids, in order of id.

        Known parts keep their schedule, new parts are due after `settle_seconds`.
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
        """Reschedule after a response.

        Args:
            request: the request.
            covered: ids that the response covers; None if it has no rows.
            requested: ids that were requested; None: all of `request`.
            missing: sorted ids that are still missing.
            now: seconds.
        """
        # A response only about other gaps makes no progress: no immediate retry.
        missed = covered is not None and not within([request.ids], covered)
        if covered is None:
            # The next part of a long gap is requested at once, in growing strides: a gap without any rows costs a few
            # requests instead of one per page.
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
        """Return `planned`, paused if the response filled nothing of the request."""
        is_stride = requested is not None and requested.size < request.ids.size
        if is_stride or total(within(missing, request.ids)) < request.ids.size:
            self._unsuccessful[request.is_retry] = 0
            return planned
        times = self._unsuccessful[request.is_retry] = min(self._unsuccessful[request.is_retry] + 1, 2)
        self._paused_until[request.is_retry] = now + times * PAUSE_SECONDS
        first, later = self._paused_until[False], max(self._paused_until.values())
        return [part._replace(due=max(part.due, later if part.is_retry else first)) for part in planned]

    def on_failure(self, request: Request, missing: Sequence[IdRange], now: float) -> None:
        """Reschedule after a request without a response."""
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
        """Return the request with a backoff, which grows only if the request was due."""
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
    """Split `request` into the parts before, inside and after `frame`; each list has one or none."""
    first, last = request.ids
    parts = (
        IdRange(first, min(last, frame.first - 1)),
        IdRange(max(first, frame.first), min(last, frame.last)),
        IdRange(max(first, frame.last + 1), last),
    )
    before, inside, behind = ([request._replace(ids=part)] if part.size > 0 else [] for part in parts)
    return before, inside, behind
