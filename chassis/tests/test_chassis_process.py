"""How a process begins and ends."""

import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable

import pytest

from marketfeed_chassis import logs
from marketfeed_chassis.errors import ServiceError, SettingsError, StartupError
from marketfeed_chassis.process import exit_code_of


def raising(error: BaseException) -> Callable[[], int]:
    def run() -> int:
        raise error

    return run


@pytest.mark.parametrize(
    ("error", "code"), [(SettingsError("a\nb"), 2), (StartupError("a\nb"), 1), (ServiceError("a\nb"), 1)]
)
def test_a_service_error_is_its_text_and_its_code(
    capsys: pytest.CaptureFixture[str], error: ServiceError, code: int
) -> None:
    assert exit_code_of(raising(error)) == code
    assert capsys.readouterr() == ("", "error: a\nerror: b\n")


@pytest.mark.usefixtures("own_logging")
def test_where_json_lines_were_promised_the_last_words_are_json_too(
    capsys: pytest.CaptureFixture[str],
) -> None:
    logs.configure("INFO", "json")
    assert exit_code_of(raising(StartupError("no Kafka broker answered at 100%:1"))) == 1
    (line,) = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert (line["event"], line["level"]) == ("no Kafka broker answered at 100%:1", "error")


def test_what_run_returns_is_the_code() -> None:
    assert [exit_code_of(lambda: 0), exit_code_of(lambda: 3)] == [0, 3]


def test_ctrl_c_is_130() -> None:
    assert exit_code_of(raising(KeyboardInterrupt())) == 130


def test_a_fault_of_ours_is_not_hidden() -> None:
    with pytest.raises(ZeroDivisionError):
        exit_code_of(raising(ZeroDivisionError()))


@pytest.mark.parametrize("encoding", ["ascii", "iso-8859-1", "utf-8"])
def test_what_stdout_cannot_encode_is_escaped(monkeypatch: pytest.MonkeyPatch, encoding: str) -> None:
    """A symbol of another script ended the command in a traceback."""
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding=encoding, write_through=True))
    assert exit_code_of(lambda: print("币安人生USDT 100 µs …") or 0) == 0
    text = "币安人生USDT 100 µs …\n"
    assert raw.getvalue() == text.encode(encoding, "backslashreplace")


WAITS = """
import signal, threading
from marketfeed_chassis.process import on_stop_signal
stopped = []
on_stop_signal(lambda: (stopped.append(1), print("stopping", len(stopped), flush=True)))
print("ready", flush=True)
while True:
    signal.pause()
"""


@pytest.mark.parametrize("first", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
def test_the_first_signal_stops_and_the_next_of_either_kind_ends(
    first: signal.Signals, second: signal.Signals
) -> None:
    with subprocess.Popen([sys.executable, "-c", WAITS], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "ready\n"
            os.kill(process.pid, first)
            assert process.stdout.readline() == "stopping 1\n"
            os.kill(process.pid, second)
            assert process.wait(60) == -second
            assert process.stdout.read() == ""
        finally:
            process.kill()
