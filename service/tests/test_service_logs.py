"""Logging: every line of stderr is a readable text line or one JSON object."""

import json
import logging
import subprocess
import sys
import warnings
from typing import Any

import pytest
import structlog
from pydantic import SecretStr

from marketfeed_service import logs

pytestmark = pytest.mark.usefixtures("own_logging")

Capture = pytest.CaptureFixture[str]


def lines(capsys: Capture) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


def fail() -> None:
    password = SecretStr("s3cret")
    shown = "pass" + "word-in-a-local-variable"
    raise ValueError(f"broken with {password!r} and {len(shown)}")


def test_logs_in_json_have_time_level_logger_event_and_each_value(capsys: Capture) -> None:
    logs.configure("INFO", "json")
    logs.get("marketfeed.one").info(
        "connection opened", streams=10, url="ws://x/?a=b c", secret=SecretStr("s3cret")
    )
    (line,) = lines(capsys)
    assert line.pop("timestamp").endswith("Z")
    assert line == {
        "event": "connection opened",
        "level": "info",
        "logger": "marketfeed.one",
        "streams": 10,
        "url": "ws://x/?a=b c",
        "secret": "SecretStr('**********')",
    }


def test_logs_of_the_standard_library_have_the_same_format(capsys: Capture) -> None:
    logs.configure("INFO", "json")
    logging.getLogger("aiokafka").warning("lost %s after %d s", "broker", 3)
    (line,) = lines(capsys)
    assert (line["event"], line["level"], line["logger"]) == ("lost broker after 3 s", "warning", "aiokafka")


def test_logs_of_a_library_accept_level_and_arguments(capsys: Capture) -> None:
    logs.configure("INFO", "json")
    logs.get("librdkafka").log(logging.ERROR, "%s [%s] %s", "FAIL", "producer-1", "100% down")
    (line,) = lines(capsys)
    assert (line["event"], line["level"]) == ("FAIL [producer-1] 100% down", "error")
    assert "positional_args" not in line


@pytest.mark.parametrize("log_format", ["json", "text"])
def test_logs_of_an_exception_have_the_traceback_without_local_variables(
    capsys: Capture, log_format: str
) -> None:
    logs.configure("INFO", log_format)
    for log in (logs.get("ours"), logging.getLogger("theirs")):
        try:
            fail()
        except ValueError:
            log.exception("gave up")
    text = capsys.readouterr().err
    assert text.count("ValueError: broken with SecretStr('**********')") == 2
    assert text.count("in fail") == 2
    assert "word-in-a-local-variable" not in text.replace('"pass" + "word-in-a-local-variable"', "").replace(
        '\\"pass\\" + \\"word-in-a-local-variable\\"', ""
    )
    if log_format == "json":
        assert [json.loads(line)["level"] for line in text.splitlines()] == ["error", "error"]


def test_logs_in_text_are_one_line_without_colours_outside_a_terminal(capsys: Capture) -> None:
    logs.configure("INFO", "text")
    logs.get("marketfeed.one").warning("waiting for Kafka", broker="localhost:9092", reason="no answer")
    (line,) = capsys.readouterr().err.splitlines()
    assert "\x1b" not in line
    assert "[warning" in line
    assert "waiting for Kafka" in line
    assert "broker=localhost:9092" in line
    assert "reason='no answer'" in line


@pytest.mark.parametrize("log_format", ["json", "text"])
def test_logs_escape_line_feeds_in_values(capsys: Capture, log_format: str) -> None:
    logs.configure("INFO", log_format)
    logs.get("ours").info("symbol rejected", symbol="BTC\n2026-01-01 [info] all is well")
    assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.parametrize("level", ["DEBUG", "INFO", "WARNING", "ERROR"])
def test_logs_level_applies_to_services_and_libraries(capsys: Capture, level: str) -> None:
    logs.configure(level, "json")
    for log in (logs.get("ours"), logging.getLogger("theirs")):
        for name in ("debug", "info", "warning", "error"):
            getattr(log, name)("said")
    heard = ["debug", "info", "warning", "error"][["DEBUG", "INFO", "WARNING", "ERROR"].index(level) :]
    assert [line["level"] for line in lines(capsys)] == heard * 2


def test_logs_second_configure_replaces_the_first(capsys: Capture) -> None:
    logs.configure("INFO", "text")
    logs.configure("INFO", "json")
    logs.get("ours").info("once")
    assert [line["event"] for line in lines(capsys)] == ["once"]
    assert logs.json_lines()


def test_logs_of_a_logger_created_before_configure_have_the_format(capsys: Capture) -> None:
    early = logs.get("early")
    logs.configure("INFO", "json")
    early.info("said")
    assert [line["logger"] for line in lines(capsys)] == ["early"]


def test_logs_have_the_values_bound_to_the_context(capsys: Capture) -> None:
    logs.configure("INFO", "json")
    with structlog.contextvars.bound_contextvars(shard="3"):
        logs.get("ours").info("said")
        logging.getLogger("theirs").info("said")
    assert [line["shard"] for line in lines(capsys)] == ["3", "3"]


def test_logs_include_python_warnings(capsys: Capture) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logs.configure("INFO", "json")
        warnings.warn("old call", DeprecationWarning, stacklevel=1)
    (line,) = lines(capsys)
    assert line["logger"] == "py.warnings"
    assert "old call" in line["event"]


CRASH = """
from marketfeed_service import logs
logs.configure("INFO", "json")
{}
"""


def test_logs_of_a_crash_are_one_json_line() -> None:
    code = CRASH.format("raise ZeroDivisionError('by nothing')")
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode == 1
    (line,) = [json.loads(line) for line in ended.stderr.splitlines()]
    assert (line["event"], line["level"]) == ("crashed", "critical")
    assert "ZeroDivisionError: by nothing" in line["exception"]
