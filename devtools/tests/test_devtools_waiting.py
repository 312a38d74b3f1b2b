"""Waiting with a deadline, free ports, and skipped tests."""

import asyncio
from collections.abc import Iterator

import pytest

from marketfeed_devtools.ports import free_port, free_ports
from marketfeed_devtools.skipping import skip_or_fail
from marketfeed_devtools.waiting import until, until_async


def answers() -> Iterator[object]:
    yield from (0, "", None, [], "found", "later")


def test_until_returns_the_first_true_value() -> None:
    found = answers()
    assert until(lambda: next(found), "it", every=0) == "found"
    assert next(found) == "later"


def test_until_names_the_condition_on_timeout() -> None:
    with pytest.raises(AssertionError, match=r"^timed out after 0\.01 s waiting for the moon$"):
        until(lambda: False, "the moon", 0.01, every=0.001)
    phases = answers()
    with pytest.raises(AssertionError, match=r"waiting for the moon, phase 0$"):
        until(lambda: False, lambda: f"the moon, phase {next(phases)}", 0.01, every=0.001)


def test_until_accepts_a_value_at_the_last_check() -> None:
    assert until(lambda: True, "nothing", 0)


async def test_until_async_lets_the_event_loop_run() -> None:
    happened = asyncio.Event()
    asyncio.get_running_loop().call_soon(happened.set)
    assert await until_async(happened.is_set, "the event")


async def test_until_async_accepts_a_coroutine_function() -> None:
    found = answers()

    async def ask() -> object:
        return next(found)

    assert await until_async(ask, "it", every=0) == "found"
    with pytest.raises(AssertionError, match="waiting for it"):
        await until_async(lambda: None, "it", 0.01)


def test_free_ports_are_distinct() -> None:
    ports = free_ports(20)
    assert len(set(ports)) == 20
    assert all(1024 <= port < 65536 for port in [*ports, free_port()])


@pytest.mark.parametrize(
    ("variable", "outcome"),
    [("", pytest.skip.Exception), ("false", pytest.skip.Exception), ("true", pytest.fail.Exception)],
)
def test_skip_or_fail_skips_and_fails_in_ci(
    variable: str, outcome: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CI", variable)
    with pytest.raises(outcome, match="no oven"):
        skip_or_fail("no oven")
