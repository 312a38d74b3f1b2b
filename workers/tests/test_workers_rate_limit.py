"""Rate limits of the venue, with the test's clock."""

from marketfeed_workers.rate_limit import AttemptBudget, WeightBudget
from marketfeed_workers.venues.errors import Limited

NOON = 43_200.0  # a full minute


class Clock:
    def __init__(self) -> None:
        self.now = NOON

    def __call__(self) -> float:
        return self.now


def budget(clock: Clock, *, limit: int | None = 1200, share: int = 1) -> WeightBudget:
    made = WeightBudget(share, clock)
    made.limit = limit
    return made


async def test_weight_available_sends_a_request_at_once() -> None:
    clock = Clock()
    weight = budget(clock)
    for _ in range(54):  # 54 x 20 = 1080: 90 % of the limit, the rest is for others behind this address
        assert weight.wait_seconds(20) == 0
        await weight.acquire(20)
    assert weight.used == 1080
    clock.now += 10
    assert weight.wait_seconds(20) == 50, "until the venue's minute turns"
    clock.now += 50
    assert weight.wait_seconds(20) == 0


async def test_weight_used_by_others_behind_the_address_counts() -> None:
    clock = Clock()
    weight = budget(clock)
    weight.observe(1075)
    assert weight.wait_seconds(5) == 0
    assert weight.wait_seconds(10) == 60
    clock.now += 61
    assert weight.wait_seconds(10) == 0, "a new minute"


async def test_weight_share_is_kept_while_others_use_nothing() -> None:
    clock = Clock()
    weight = budget(clock, share=10)
    await weight.acquire(100)
    assert weight.wait_seconds(8) == 0
    assert weight.wait_seconds(9) == 60


async def test_weight_above_the_whole_share_is_sent_in_a_new_minute() -> None:
    clock = Clock()
    weight = budget(clock, limit=100, share=50)
    assert weight.wait_seconds(20) == 0
    await weight.acquire(20)
    assert weight.wait_seconds(1) == 60


def test_weight_used_is_reported_for_the_current_minute() -> None:
    clock = Clock()
    weight = budget(clock)
    weight.observe(1100)
    assert weight.used_now == 1100
    clock.now += 60
    assert weight.used_now == 0, "weight is used an hour after the last request"


def test_weight_is_not_limited_before_the_limit_is_known() -> None:
    weight = budget(Clock(), limit=None)
    weight.observe(10_000)
    assert weight.wait_seconds(20) == 0


def test_weight_is_blocked_for_retry_after() -> None:
    clock = Clock()
    weight = budget(clock)
    weight.block(Limited("rate_limited", "", 7))
    assert (weight.wait_seconds(1), weight.blocked_seconds) == (7, 7)
    clock.now += 3
    weight.block(Limited("rate_limited", "", 1))
    assert weight.wait_seconds(1) == 4, "a shorter Retry-After ended a longer one"
    clock.now += 4
    assert (weight.wait_seconds(1), weight.blocked_seconds) == (0, 0)


async def test_attempts_within_a_window() -> None:
    clock = Clock()
    attempts = AttemptBudget(3, 1, 300, clock)
    for _ in range(3):
        assert attempts.wait_seconds() == 0
        await attempts.acquire()
        clock.now += 10
    assert attempts.used == 3
    assert attempts.wait_seconds() == 270, "until the first one is 300 seconds old"
    clock.now += 270
    assert (attempts.wait_seconds(), attempts.used) == (0, 2)


def test_attempts_share_is_at_least_one() -> None:
    assert AttemptBudget(300, 1000, 300, Clock()).limit == 1


async def test_attempts_count_after_the_share_is_reduced() -> None:
    clock = Clock()
    attempts = AttemptBudget(4, 1, 300, clock)
    for _ in range(4):
        await attempts.acquire()
        clock.now += 10
    attempts.share = 2
    assert (attempts.limit, attempts.wait_seconds()) == (2, 280), "until only one is left in the window"
    attempts.share = 1
    assert attempts.wait_seconds() == 260


async def test_weight_share_follows_the_number_of_workers() -> None:
    weight = budget(Clock(), limit=100, share=1)
    await weight.acquire(40)
    assert weight.wait_seconds(10) == 0
    weight.share = 2
    assert weight.wait_seconds(10) == 60


async def test_attempts_are_read_only_from_other_threads() -> None:
    clock = Clock()
    attempts = AttemptBudget(1, 1, 300, clock)
    await attempts.acquire()
    clock.now += 301
    assert attempts.used == 0
    clock.now -= 301
    assert attempts.used == 1, "a scrape removed an attempt"


async def test_weight_minutes_are_the_venues_and_tolerate_latency() -> None:
    clock = Clock()
    weight = budget(clock)
    weight.align(clock.now + 40)
    await weight.acquire(1080)
    assert weight.wait_seconds(1) == 20, "the venue's minute ends in 20 s"
    weight.align(clock.now + 40.5)
    assert (weight.used, weight.wait_seconds(1)) == (1080, 20)
    weight.align(clock.now + 10)
    assert (weight.used, weight.wait_seconds(1)) == (1080, 50), "a corrected clock began a new minute"
    clock.now += 50
    assert weight.wait_seconds(1) == 0


async def test_weight_of_retries_leaves_half() -> None:
    clock = Clock()
    weight = budget(clock)
    await weight.acquire(270)
    assert weight.has_ample_spare
    await weight.acquire(1)
    assert not weight.has_ample_spare
    await weight.acquire(269)
    assert weight.has_spare
    await weight.acquire(1)
    assert not weight.has_spare
    clock.now += 60
    assert weight.has_spare
    weight.observe(541)
    assert not weight.has_spare, "others behind this address have used it"


async def test_weight_of_backfill_leaves_a_reserve() -> None:
    """A large backfill used up each minute at its beginning, and streams could not be verified until the next one."""
    clock = Clock()
    weight = budget(clock, share=2)  # 1200 * 0.9 / 2 = 540, of which 108 are reserved
    while weight.wait_seconds(25, is_backfill=True) == 0:
        await weight.acquire(25, is_backfill=True)
    assert weight.used == 425
    assert weight.wait_seconds(25, is_backfill=True) == 60
    while weight.wait_seconds(2) == 0:
        await weight.acquire(2)
    assert weight.used == 539
    clock.now += 60
    assert weight.wait_seconds(25, is_backfill=True) == 0


def test_weight_of_backfill_leaves_a_reserve_while_others_use_most() -> None:
    weight = budget(Clock())
    weight.observe(860)
    assert weight.wait_seconds(25, is_backfill=True) == 60
    assert weight.wait_seconds(25) == 0


def test_weight_of_backfill_above_its_limit_is_sent_in_a_new_minute() -> None:
    assert budget(Clock(), limit=100, share=50).wait_seconds(25, is_backfill=True) == 0
