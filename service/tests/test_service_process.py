"""Begin and end of a process: exit codes, signals, stdout."""

import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable

import pytest

from marketfeed_service import logs
from marketfeed_service.errors import ServiceError, SettingsError, StartupError
from marketfeed_service.process import exit_code_of


def raising(error: BaseException) -> Callable[[], int]:
    def run() -> int:
        raise error

    return run


@pytest.mark.parametrize(
    ("error", "code"), [(SettingsError("a\nb"), 2), (StartupError("a\nb"), 1), (ServiceError("a\nb"), 1)]
)
def test_exit_code_of_a_service_error_and_its_text(
    capsys: pytest.CaptureFixture[str], error: ServiceError, code: int
) -> None:
    assert exit_code_of(raising(error)) == code
    assert capsys.readouterr() == ("", "error: a\nerror: b\n")


@pytest.mark.usefixtures("own_logging")
def test_exit_code_error_is_a_json_line_with_json_logs(
    capsys: pytest.CaptureFixture[str],
) -> None:
    logs.configure("INFO", "json")
    assert exit_code_of(raising(StartupError("no Kafka broker responded at 100%:1"))) == 1
    (line,) = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert (line["event"], line["level"]) == ("no Kafka broker responded at 100%:1", "error")


def test_exit_code_is_the_return_value() -> None:
    assert [exit_code_of(lambda: 0), exit_code_of(lambda: 3)] == [0, 3]


def test_exit_code_of_ctrl_c_is_130() -> None:
    assert exit_code_of(raising(KeyboardInterrupt())) == 130


def test_exit_code_does_not_hide_unexpected_exceptions() -> None:
    with pytest.raises(ZeroDivisionError):
        exit_code_of(raising(ZeroDivisionError()))


@pytest.mark.parametrize("encoding", ["ascii", "iso-8859-1", "utf-8"])
def test_stdout_escapes_characters_that_it_cannot_encode(
    monkeypatch: pytest.MonkeyPatch, encoding: str
) -> None:
    """Regression: a symbol with non-Latin characters ended the command with a traceback."""
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding=encoding, write_through=True))
    assert exit_code_of(lambda: print("币安人生USDT 100 µs …") or 0) == 0
    text = "币安人生USDT 100 µs …\n"
    assert raw.getvalue() == text.encode(encoding, "backslashreplace")


WAITS = """
import signal, threading
from marketfeed_service.process import on_stop_signal
stopped = []
on_stop_signal(lambda: (stopped.append(1), print("stopping", len(stopped), flush=True)))
print("ready", flush=True)
while True:
    signal.pause()
"""


@pytest.mark.parametrize("first", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
def test_stop_signal_stops_and_a_second_one_ends_the_process(
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
