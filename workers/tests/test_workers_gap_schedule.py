"""When missing ids are asked for: each part by its own backoff, whatever becomes of the others."""

import random

from hypothesis import given
from hypothesis import strategies as st

from marketfeed_workers.backfill_schedule import (
    FIRST_RETRY_SECONDS,
    MAX_RETRY_SECONDS,
    MAX_UNANSWERED_SECONDS,
    PAUSE_SECONDS,
    SETTLE_SECONDS,
    GapSchedule,
    Request,
)
from marketfeed_workers.stream.id_ranges import IdRange, merged, of_ids

PAGE = 10


def schedule() -> GapSchedule:
    return GapSchedule(random.Random(1))  # noqa: S311


def ranges(*pairs: tuple[int, int]) -> list[IdRange]:
    return [IdRange(*pair) for pair in pairs]


def ids(requests: list[Request]) -> list[tuple[int, int]]:
    return [(request.ids.first, request.ids.last) for request in requests]


def test_gap_schedule_asks_for_a_new_gap_in_a_moment() -> None:
    (request,) = schedule().update(ranges((5, 9)), 100.0)
    assert (request.ids, request.due, request.is_retry) == (IdRange(5, 9), 100.0 + SETTLE_SECONDS, False)


def test_gap_schedule_leaves_a_gap_that_grows_to_be_asked_for_as_one() -> None:
    made = schedule()
    made.settle_seconds = 5.0
    for newest in range(1, 50):
        (first, *_) = made.update(ranges((1, newest)), newest / 10)
        assert (first.ids, first.due) == (IdRange(1, 1), 0.1 + 5.0)


def test_gap_schedule_delays_only_what_the_response_answered_for_and_did_not_have() -> None:
    made, missing = schedule(), ranges((1, 30), (50, 60))
    request = made.update(missing, 0.0)[0]
    left = ranges((3, 3), (11, 30), (50, 60))  # a page came, of which the row of trade 3 was odd
    made.on_response(request, IdRange(1, 10), None, left, 1.0)
    odd, rest, other = made.update(left, 1.0)
    assert (odd.failures, 1 < odd.due <= 1 + FIRST_RETRY_SECONDS) == (1, True)
    assert (rest.failures, rest.due <= 1.0) == (0, True)
    assert (other.failures, other.requested) == (0, 0.0)


def test_gap_schedule_skips_in_growing_strides_where_the_venue_has_nothing() -> None:
    made, missing = schedule(), ranges((1, 1000 * PAGE))
    for number in range(20):
        now = float(number) / 100
        due = [each for each in made.update(missing, now) if not each.is_retry]
        if not due:
            break
        made.on_response(due[0], None, IdRange(due[0].ids.first, due[0].ids.first + PAGE - 1), missing, now)
    assert number == 10, "1,000 pages of which there is nothing cost log2(1000) requests"


def test_gap_schedule_backs_off_to_a_bound_and_sooner_where_rest_did_not_answer() -> None:
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
    # Whoever waited n seconds in all waits at most as long again: a gap that REST comes to have is closed by then.
    assert all(delay <= 4 * sum(delays[:n]) for n, delay in enumerate(delays) if n > 1)
    made.on_failure(request, missing, now)
    (request,) = made.update(missing, now)
    assert request.due - now <= MAX_UNANSWERED_SECONDS


def test_gap_schedule_delays_what_a_response_about_other_gaps_did_not_reach() -> None:
    """REST lagged: rows of an earlier gap came again and again, and each time the later one was due at once."""
    made, missing = schedule(), ranges((1, 1), (20, 22))
    made.update(missing, 0.0)
    earlier, later = made.update(missing, 1.0)
    made.on_response(later, IdRange(1, 1), None, missing, 1.0)
    for each in made.update(missing, 1.0):
        assert (each.failures, 1 < each.due <= 1 + FIRST_RETRY_SECONDS) == (1, True)
    made.on_response(earlier, IdRange(1, 1), None, missing, 1.0)
    assert made.update(missing, 1.0)[1].failures == 1, "that was about the earlier one"


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
def test_gap_schedule_plans_exactly_what_is_missing(
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
def test_gap_schedule_asks_no_more_at_once_than_there_are_ids(
    missing: list[IdRange], responses: list[tuple[int, int] | None]
) -> None:
    """Whatever responses are about that settle nothing: each delays an id at least, and the loop comes to rest."""
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


def test_gap_schedule_of_many_gaps_that_cannot_be_had_now_costs_few_requests() -> None:
    """REST lagged behind a stream that lost every other trade: each gap asked for itself, ten times a second in all."""
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


def test_gap_schedule_rests_not_where_some_of_what_was_asked_for_came() -> None:
    made, missing = schedule(), ranges((1, 30), (50, 60))
    made.update(missing, 0.0)
    request = made.update(missing, 1.0)[0]
    left = ranges((11, 30), (50, 60))
    made.on_response(request, IdRange(1, 10), None, left, 1.0)
    assert [each.due <= 1.0 for each in made.update(left, 1.0)] == [True, True]


def test_gap_schedule_rests_after_a_retry_with_retries_only() -> None:
    """What cannot be filled delays nothing that can."""
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
