"""Schedule of backfill requests: each part with its own backoff, independent of the others."""

import random

from hypothesis import given
from hypothesis import strategies as st

from marketfeed_service.id_ranges import IdRange, merged, of_ids
from marketfeed_workers.backfill_schedule import (
    FIRST_RETRY_SECONDS,
    MAX_RETRY_SECONDS,
    MAX_UNANSWERED_SECONDS,
    PAUSE_SECONDS,
    SETTLE_SECONDS,
    GapSchedule,
    Request,
)

PAGE = 10


def schedule() -> GapSchedule:
    return GapSchedule(random.Random(1))  # noqa: S311


def ranges(*pairs: tuple[int, int]) -> list[IdRange]:
    return [IdRange(*pair) for pair in pairs]


def ids(requests: list[Request]) -> list[tuple[int, int]]:
    return [(request.ids.first, request.ids.last) for request in requests]


def test_backfill_schedule_delays_a_new_gap_shortly() -> None:
    (request,) = schedule().update(ranges((5, 9)), 100.0)
    assert (request.ids, request.due, request.is_retry) == (IdRange(5, 9), 100.0 + SETTLE_SECONDS, False)


def test_backfill_schedule_requests_a_growing_gap_as_one() -> None:
    made = schedule()
    made.settle_seconds = 5.0
    for newest in range(1, 50):
        (first, *_) = made.update(ranges((1, newest)), newest / 10)
        assert (first.ids, first.due) == (IdRange(1, 1), 0.1 + 5.0)


def test_backfill_schedule_delays_only_what_the_response_covered_and_did_not_have() -> None:
    made, missing = schedule(), ranges((1, 30), (50, 60))
    request = made.update(missing, 0.0)[0]
    left = ranges((3, 3), (11, 30), (50, 60))  # after a page with an invalid row of trade 3
    made.on_response(request, IdRange(1, 10), None, left, 1.0)
    odd, rest, other = made.update(left, 1.0)
    assert (odd.failures, 1 < odd.due <= 1 + FIRST_RETRY_SECONDS) == (1, True)
    assert (rest.failures, rest.due <= 1.0) == (0, True)
    assert (other.failures, other.requested) == (0, 0.0)


def test_backfill_schedule_skips_in_growing_strides_without_rows() -> None:
    made, missing = schedule(), ranges((1, 1000 * PAGE))
    for number in range(20):
        now = float(number) / 100
        due = [each for each in made.update(missing, now) if not each.is_retry]
        if not due:
            break
        made.on_response(due[0], None, IdRange(due[0].ids.first, due[0].ids.first + PAGE - 1), missing, now)
    assert number == 10, "1,000 pages of which there is nothing cost log2(1000) requests"


def test_backfill_schedule_backoff_is_bounded_and_shorter_without_a_response() -> None:
    made, missing = schedule(), ranges((1, 1))
    now, delays = 0.0, []
    for _ in range(25):
        (request,) = made.update(missing, now)
        made.on_response(request, request.ids, None, missing, now)
        (request,) = made.update(missing, now)
        delays.append(request.due - now)
        now = request.due
    assert max(delays) <= MAX_RETRY_SECONDS
    assert delays[-1] >= MAX_RETRY_SECONDS / 2
    # The backoff is at most the time waited so far: a gap that becomes available is closed within that.
    assert all(delay <= 4 * sum(delays[:n]) for n, delay in enumerate(delays) if n > 1)
    made.on_failure(request, missing, now)
    (request,) = made.update(missing, now)
    assert request.due - now <= MAX_UNANSWERED_SECONDS


def test_backfill_schedule_delays_gaps_not_reached_by_a_response_about_others() -> None:
    """With a lagging REST rows of an earlier gap were returned repeatedly, and each made the later one due at once."""
    made, missing = schedule(), ranges((1, 1), (20, 22))
    made.update(missing, 0.0)
    earlier, later = made.update(missing, 1.0)
    made.on_response(later, IdRange(1, 1), None, missing, 1.0)
    for each in made.update(missing, 1.0):
        assert (each.failures, 1 < each.due <= 1 + FIRST_RETRY_SECONDS) == (1, True)
    made.on_response(earlier, IdRange(1, 1), None, missing, 1.0)
    assert made.update(missing, 1.0)[1].failures == 1, "the response was about the earlier gap"


missing_ids = st.sets(st.integers(0, 60), max_size=40)
steps = st.lists(
    st.tuples(
        st.sampled_from(["answered", "empty", "unanswered"]),
        st.integers(0, 60),
        st.integers(0, 20),
        missing_ids,
    ),
    max_size=12,
)


@given(first=missing_ids, steps=steps)
def test_backfill_schedule_covers_exactly_the_missing_ids(
    first: set[int], steps: list[tuple[str, int, int, set[int]]]
) -> None:
    made, missing, now = schedule(), of_ids(first), 0.0
    for kind, start, size, still in steps:
        now += 1.0
        planned = made.update(missing, now)
        missing = of_ids(still)
        if planned:
            request = planned[start % len(planned)]
            covered = IdRange(start, start + size)
            if kind == "unanswered":
                made.on_failure(request, missing, now)
            else:
                made.on_response(
                    request, covered if kind == "answered" else None, IdRange(start, start + 5), missing, now
                )
        planned = made.update(missing, now)
        assert merged(each.ids for each in planned) == missing
        assert sum(each.ids.size for each in planned) == sum(each.size for each in missing), "planned twice"
        assert all(each.due <= now + MAX_RETRY_SECONDS for each in planned)
        assert made.update(missing, now) == planned


@given(
    missing=st.sets(st.integers(0, 60), min_size=1, max_size=40).map(of_ids),
    responses=st.lists(
        st.none() | st.tuples(st.integers(0, 60), st.integers(0, 20)), min_size=1, max_size=12
    ),
)
def test_backfill_schedule_never_requests_more_than_the_missing_ids(
    missing: list[IdRange], responses: list[tuple[int, int] | None]
) -> None:
    """Each response that fills nothing delays at least one id, so that there is no busy loop."""
    made, now = schedule(), 10.0
    made.update(missing, 0.0)
    for number in range(sum(each.size for each in missing) + 1):
        due = [each for each in made.update(missing, now) if each.due <= now]
        if not due:
            return
        about = responses[number % len(responses)]
        covered = None if about is None else IdRange(about[0], sum(about))
        made.on_response(due[number % len(due)], covered, None, missing, now)
    assert not due


def test_backfill_schedule_of_many_unavailable_gaps_sends_few_requests() -> None:
    """REST lagged behind a stream that lost every other trade: ten requests per second for single gaps."""
    made, now, newest, sent = schedule(), 0.0, 0, 0
    made.update([], now)
    while now < 10.0:
        newest = int(now * 5) * 2
        missing = [IdRange(each, each) for each in range(0, newest + 1, 2)]
        due = [each for each in made.update(missing, now) if each.due <= now]
        for each in [
            *[one for one in due if not one.is_retry][:1],
            *[one for one in due if one.is_retry][:1],
        ]:
            made.on_response(each, None, None, missing, now)
            sent += 1
        now += 0.05
    assert sent <= 25


def test_backfill_schedule_does_not_pause_after_a_partial_response() -> None:
    made, missing = schedule(), ranges((1, 30), (50, 60))
    made.update(missing, 0.0)
    request = made.update(missing, 1.0)[0]
    left = ranges((11, 30), (50, 60))
    made.on_response(request, IdRange(1, 10), None, left, 1.0)
    assert [each.due <= 1.0 for each in made.update(left, 1.0)] == [True, True]


def test_backfill_schedule_pauses_only_retries_after_a_retry() -> None:
    """A gap that cannot be filled delays no other."""
    made, missing = schedule(), ranges((1, 1), (5, 5), (9, 9))
    made.update(missing, 0.0)
    retried, other, fresh = made.update(missing, 1.0)
    made.on_response(retried, None, None, missing, 1.0)
    retried, other, fresh = made.update(missing, 10.0)
    made.on_response(other, None, None, missing, 10.0)
    retried, other, fresh = made.update(missing, 20.0)
    made.on_response(retried, None, None, missing, 20.0)
    missing = [*missing, IdRange(20, 20)]
    retried, other, fresh, new = made.update(missing, 20.0)
    assert other.due == 20.0 + PAUSE_SECONDS
    assert fresh.due <= 20.0
    assert new.due == 20.0 + SETTLE_SECONDS
