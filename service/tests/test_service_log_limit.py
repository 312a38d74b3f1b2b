"""Bounded logs: a few lines per kind and interval, a count of the others, two lines for a lasting state."""

import json
import logging
import subprocess
import sys
from collections import Counter
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from marketfeed_service.log_limit import (
    INTERVAL_SECONDS,
    MAX_KINDS,
    MAX_LIBRARY_LINES,
    MAX_LINES,
    Episode,
    RepeatLimit,
)


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def ours(event: str, **fields: Any) -> logging.LogRecord:
    message = {"event": event, **fields}
    return logging.LogRecord("marketfeed_workers.x", logging.WARNING, "", 0, message, None, None)


def library(text: str) -> logging.LogRecord:
    return logging.LogRecord("librdkafka", logging.ERROR, "", 0, "%s", (text,), None)


def test_log_limit_writes_the_first_lines_of_an_event_whatever_their_fields() -> None:
    limit = RepeatLimit(Clock())
    written = [limit.admits(ours("frame rejected", number=each)) for each in range(5 * MAX_LINES)]
    assert written == [True] * MAX_LINES + [False] * 4 * MAX_LINES
    assert limit.admits(ours("gap detected")), "another event has lines of its own"


def test_log_limit_counts_library_lines_that_differ_in_numbers_as_repeated() -> None:
    limit = RepeatLimit(Clock())
    refused = "Connect to ipv4#127.0.0.1:9 failed: Connection refused (after {}ms in state CONNECT)"
    assert limit.admits(library(refused.format(0)))
    assert not limit.admits(library(refused.format(12)))
    assert limit.admits(library("Authentication failed"))


def test_log_limit_summarises_with_the_count_when_the_interval_ends() -> None:
    clock = Clock()
    limit = RepeatLimit(clock)
    for _ in range(MAX_LINES + 7):
        limit.admits(ours("frame rejected"))
    limit.admits(ours("gap detected"))
    assert limit.next_end_seconds() == INTERVAL_SECONDS
    clock.now += INTERVAL_SECONDS - 1
    assert limit.ended() == []
    clock.now += 1
    assert [(each.kind.text, each.suppressed) for each in limit.ended()] == [("frame rejected", 7)]
    assert limit.next_end_seconds() is None
    assert limit.admits(ours("frame rejected")), "the next interval writes again"


def test_log_limit_never_suppresses_a_crash() -> None:
    limit = RepeatLimit(Clock())
    crash = logging.LogRecord("marketfeed", logging.CRITICAL, "", 0, {"event": "crashed"}, None, None)
    assert all(limit.admits(crash) for _ in range(10 * MAX_LINES))


def test_log_limit_counts_many_kinds_in_bounded_memory() -> None:
    clock = Clock()
    limit = RepeatLimit(clock)
    texts = [chr(0x4E00 + each) for each in range(3 * MAX_KINDS)]
    written = sum(limit.admits(library(text)) for text in texts)
    assert written == MAX_KINDS + MAX_LIBRARY_LINES
    clock.now += INTERVAL_SECONDS
    assert sum(each.suppressed for each in limit.ended()) == len(texts) - written


EVENTS = st.sampled_from(["frame rejected", "gap detected", "writes paused"])


@given(st.lists(st.tuples(EVENTS, st.floats(0, 50))))
def test_log_limit_accounts_for_every_line(lines: list[tuple[str, float]]) -> None:
    clock = Clock()
    limit = RepeatLimit(clock)
    accounted: Counter[str] = Counter()
    for event, seconds in lines:
        clock.now += seconds
        for kind, count in limit.ended():
            accounted[kind.text] += count
        accounted[event] += limit.admits(ours(event))
    for kind, count in limit.ended(all_intervals=True):
        accounted[kind.text] += count
    assert accounted == Counter(event for event, _ in lines)


class Log:
    def __init__(self) -> None:
        self.lines: list[tuple[str, str, dict[str, Any]]] = []

    def warning(self, event: str, **fields: Any) -> None:
        self.lines.append(("warning", event, fields))

    def info(self, event: str, **fields: Any) -> None:
        self.lines.append(("info", event, fields))


def test_episode_is_logged_when_it_begins_and_when_it_ends() -> None:
    clock, log = Clock(), Log()
    paused = Episode(log, "writes paused", "writes resumed", clock)
    paused.end()
    for _ in range(30):
        paused.begin(reason="the table is locked")
        clock.now += 1
    assert paused.active
    paused.end(table="trades")
    paused.end()
    assert log.lines == [
        ("warning", "writes paused", {"reason": "the table is locked"}),
        ("info", "writes resumed", {"seconds": 30.0, "occurrences": 30, "table": "trades"}),
    ]
    paused.begin(reason="once more")
    assert [event for _, event, _ in log.lines].count("writes paused") == 2


PROCESS = """
from marketfeed_service import log_limit, logs
log_limit.INTERVAL_SECONDS = {interval}
logs.configure("INFO", "json")
for number in range(1000):
    logs.get("marketfeed.one").warning("frame rejected", number=number)
{then}
"""


def events(then: str, interval: float) -> list[dict[str, Any]]:
    code = PROCESS.format(interval=interval, then=then)
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    return [json.loads(line) for line in ended.stderr.splitlines()]


def test_log_limit_summary_is_written_at_the_end_of_the_process() -> None:
    lines = events("", 60)
    assert [line["event"] for line in lines] == ["frame rejected"] * MAX_LINES + ["log lines suppressed"]
    assert (lines[-1]["line"], lines[-1]["count"]) == ("frame rejected", 1000 - MAX_LINES)
    assert (lines[-1]["level"], lines[-1]["logger"], lines[-1]["of"]) == (
        "warning",
        "marketfeed.logs",
        "marketfeed.one",
    )


def test_log_limit_summary_is_written_when_the_interval_ends_and_nothing_else_is_logged() -> None:
    then = """
import threading
next(each for each in threading.enumerate() if each.name == "log-summary").join()
import os
os._exit(0)
"""
    assert events(then, 0.5)[-1]["count"] == 1000 - MAX_LINES
