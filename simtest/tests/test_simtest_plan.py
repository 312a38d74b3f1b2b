"""Plans: drawn from a seed, encoded as one line, shrunk; and the session's clock."""

import asyncio
import time

import msgspec
import pytest

from marketfeed_simtest import rare
from marketfeed_simtest.clock import Clock, Pipe, StuckError, VirtualLoop
from marketfeed_simtest.faults import begins, kind_of
from marketfeed_simtest.plan import SYMBOLS, as_json, draw, from_json, gaps_since, scenario, shrink
from marketfeed_simulator.faults import parse


@pytest.mark.parametrize("seed", range(20))
def test_plan_is_equal_after_encoding_and_decoding(seed: int) -> None:
    plan = draw(seed)
    assert from_json(as_json(plan)) == plan
    assert "\n" not in as_json(plan)
    assert [begins(each) for each in plan.faults] == sorted(begins(each) for each in plan.faults)


def test_plan_seeds_reach_every_kind_of_fault_and_every_symbol() -> None:
    plans = [draw(seed) for seed in range(400)]
    kinds = {kind_of(each) for plan in plans for each in plan.faults}
    assert len(kinds) >= 30
    assert {name for plan in plans for name in plan.rates} == set(SYMBOLS)


def test_plan_is_a_scenario_of_the_simulator() -> None:
    for seed in range(50):
        for fault in scenario(draw(seed))["faults"]:
            assert parse(msgspec.json.encode(fault))


def test_plan_shrinks_as_long_as_it_fails() -> None:
    plan = next(plan for plan in map(draw, range(100)) if len(plan.faults) == 20 and len(plan.rates) > 1)
    kept = plan.faults[7]
    small, tries = shrink(plan, lambda candidate: kept in candidate.faults)
    assert small.faults == [kept]
    assert len(small.rates) == 1
    assert not small.settings
    assert tries < 200


def test_clock_advances_by_waits_only() -> None:
    clock = Clock()
    loop = VirtualLoop(clock)

    async def wait() -> tuple[float, float, float]:
        began = time.monotonic()
        await asyncio.sleep(3600)
        time.sleep(60)  # noqa: ASYNC251 - it moves the clock
        clock.step_seconds = -100
        return began, time.monotonic(), time.time() - clock.true_us() / 1e6

    with clock.installed():
        began, ended, wall = loop.run_until_complete(wait())
    assert (round(began, 3), round(ended, 3), round(wall, 3)) == (0.0, 3660.0, -100.0)
    loop.close()
    assert time.monotonic() != clock.seconds


def test_clock_advances_by_waits_below_float_resolution() -> None:
    clock = Clock()
    loop = VirtualLoop(clock)

    async def spin() -> None:
        until = 100.0
        await asyncio.sleep(until - 1e-15)
        while (left := until - clock.seconds) > 0:  # noqa: ASYNC110 - it waits for the clock
            await asyncio.sleep(min(left, 1e-18))

    with clock.installed():
        loop.run_until_complete(spin())
    loop.close()
    assert clock.seconds >= 100.0


def test_clock_raises_when_nothing_is_due() -> None:
    clock = Clock()
    loop = VirtualLoop(clock)

    async def wait_for_nothing() -> None:
        await asyncio.Event().wait()

    with clock.installed(), pytest.raises(StuckError):
        loop.run_until_complete(wait_for_nothing())
    for task in asyncio.all_tasks(loop):
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            loop.run_until_complete(task)
    loop.close()


def test_pipe_keeps_the_order_of_calls_due_at_one_time() -> None:
    clock = Clock()
    loop = VirtualLoop(clock)
    came: list[int] = []
    pipe = Pipe(loop)
    for number in range(100):
        pipe.put(1.0, lambda number=number: came.append(number))  # type: ignore[misc]
    pipe.put(0.5, lambda: came.append(-1))
    with clock.installed():
        loop.run_until_complete(asyncio.sleep(2))
    loop.close()
    assert came == [-1, *range(100)]


def test_plan_rare_seeds_reach_each_situation_and_change_no_other_plan() -> None:
    plans = [draw(rare.FIRST_SEED + seed) for seed in range(40)]
    for plan in plans:
        assert from_json(as_json(plan)) == plan
        assert [begins(each) for each in plan.faults] == sorted(begins(each) for each in plan.faults)
        assert plan.environment()
    assert {plan.settings.get("kafka_acks") for plan in plans} == {None, "1"}
    begun = [plan for plan in plans if "backfill_from" in plan.settings]
    assert len(begun) == 10
    assert all(plan.head_start_seconds and gaps_since(plan) == 0 for plan in begun)
    assert {plan.head_start_seconds for plan in map(draw, range(40))} == {0}
