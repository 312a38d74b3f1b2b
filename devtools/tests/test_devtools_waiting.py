"""Waiting, ports, and what becomes of a test that lacks something."""

import asyncio
from collections.abc import Iterator

import pytest

from marketfeed_devtools.ports import free_port, free_ports
from marketfeed_devtools.skipping import skip_or_fail
from marketfeed_devtools.waiting import until, until_async


def answers() -> Iterator[object]:
    yield from (0, "", None, [], "found", "later")


def test_the_first_true_answer_is_given() -> None:
    found = answers()
    assert until(lambda: next(found), "it", every=0) == "found"
    assert next(found) == "later"


def test_what_never_comes_is_named() -> None:
    with pytest.raises(AssertionError, match=r"^waited 0\.01 s in vain for the moon$"):
        until(lambda: False, "the moon", 0.01, every=0.001)


def test_an_answer_at_the_last_look_counts() -> None:
    assert until(lambda: True, "nothing", 0)


async def test_the_loop_goes_on_meanwhile() -> None:
    happened = asyncio.Event()
    asyncio.get_running_loop().call_soon(happened.set)
    assert await until_async(happened.is_set, "the event")


async def test_a_coroutine_may_be_asked() -> None:
    found = answers()

    async def ask() -> object:
        return next(found)

    assert await until_async(ask, "it", every=0) == "found"
    with pytest.raises(AssertionError, match="in vain for it"):
        await until_async(lambda: None, "it", 0.01)


def test_ports_that_are_asked_for_together_differ() -> None:
    ports = free_ports(20)
    assert len(set(ports)) == 20
    assert all(1024 <= port < 65536 for port in [*ports, free_port()])


@pytest.mark.parametrize(
    ("variable", "outcome"),
    [("", pytest.skip.Exception), ("false", pytest.skip.Exception), ("true", pytest.fail.Exception)],
)
def test_what_is_lacking_skips_and_in_ci_fails(
    variable: str, outcome: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CI", variable)
    with pytest.raises(outcome, match="no oven"):
        skip_or_fail("no oven")
