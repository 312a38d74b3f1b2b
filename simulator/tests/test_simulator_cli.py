"""Command line: help, errors, the port file, and shutdown."""

import asyncio
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import websockets

from marketfeed_devtools.waiting import until

COMMAND = [sys.executable, "-m", "marketfeed_simulator"]


def run(*arguments: object) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [*COMMAND, *map(str, arguments)], capture_output=True, text=True, timeout=60, check=False
    )


@pytest.fixture
def started(tmp_path: Path) -> Iterator[Callable[..., tuple["subprocess.Popen[str]", int]]]:
    """Start the command and return the process and its port, once it listens."""
    processes = []

    def begin(*arguments: object) -> tuple["subprocess.Popen[str]", int]:
        port_file = tmp_path / "port"
        process = subprocess.Popen(
            [*COMMAND, "--port-file", str(port_file), *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        processes.append(process)
        until(lambda: port_file.exists() or process.poll() is not None, "the port", 30)
        assert port_file.exists(), process.communicate()
        return process, int(port_file.read_text())

    yield begin
    for process in processes:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("arguments", [("--help",), ("generate", "--help"), ("replay", "--help")])
def test_cli_help(arguments: tuple[str, ...]) -> None:
    done = run(*arguments)
    assert (done.returncode, done.stderr) == (0, "")
    assert "--" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "required: generate|replay"),
        (("--port", "99999", "generate"), "'99999' is not a port: 0 to 65535"),
        (("--port", "x", "generate"), "'x' is not a port: 0 to 65535"),
        (("replay", "nowhere.gz"), "error: recording nowhere.gz cannot be read: No such file or directory"),
        (("generate", "--symbols", ","), "error: --symbols ',' contains no symbol"),
        (("generate", "--symbols", "0"), "error: --symbols '0' contains no symbol"),
        (("generate", "--rates", "XUSDT=1,2"), "error: --rates 'XUSDT=1,2': XUSDT is not one of the symbols"),
        (("generate", "--rates", "BTCUSDT=1"), "error: --rates 'BTCUSDT=1' is not SYMBOL=TRADES,QUOTES"),
        (
            ("generate", "--rates", "BTCUSDT=1,-2"),
            "error: --rates 'BTCUSDT=1,-2' is not SYMBOL=TRADES,QUOTES",
        ),
        (("generate", "--trade-rate", "-1"), "'-1' is not a rate"),
        (("generate", "--speed", "0"), "'0' is not a number above 0"),
        (
            ("--port-file", "/nowhere/port", "generate"),
            "error: --port-file /nowhere/port cannot be written: No such file",
        ),
        (("--listed", "X=OPEN", "generate"), "error: --listed 'X=OPEN' is not SYMBOL=STATUS"),
        (("--scenario", "nowhere.yaml", "generate"), "error: scenario nowhere.yaml cannot be read"),
        (
            ("--exchange-info", "nowhere.json", "generate"),
            "error: --exchange-info nowhere.json cannot be read",
        ),
    ],
)
def test_cli_invalid_arguments_exit_2_with_the_value(arguments: tuple[str, ...], words: str) -> None:
    done = run(*arguments)
    assert done.returncode == 2
    assert words in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("faults: [{fault: dorp}]", "Invalid value 'dorp'"),
        ("fault: drop", "unknown field `fault`"),
        ("faults: [{fault: cut, lose_frames: -1}]", ">= 0"),
        ("faults: [", "scenario"),
        ("faults: [{fault: halt, symbols: [NOSUCH]}]", "not listed here: NOSUCH"),
    ],
)
def test_scenario_that_is_invalid_exits_2(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "scenario.yaml").write_text(text)
    done = run("--scenario", tmp_path / "scenario.yaml", "generate")
    assert done.returncode == 2
    assert "error: scenario" in done.stderr
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_recording_is_validated_before_the_port_is_opened(
    tmp_path: Path, recording_of: Callable[..., Path]
) -> None:
    path = recording_of([1, 2, 3])
    path.write_text(path.read_text() + "oops\n")
    done = run("--port-file", tmp_path / "port", "replay", path)
    assert done.returncode == 2
    assert f"error: recording {path}, line 4: " in done.stderr
    assert not (tmp_path / "port").exists()


def test_port_in_use_exits_1(
    started: Callable[..., tuple["subprocess.Popen[str]", int]],
) -> None:
    _, port = started("generate")
    done = run("--port", port, "generate")
    assert done.returncode == 1
    assert f"error: cannot listen on 127.0.0.1:{port}: " in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_shutdown_on_signal_exits_0(
    started: Callable[..., tuple["subprocess.Popen[str]", int]], number: signal.Signals
) -> None:
    process, port = started("--log-format", "json", "generate")
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/v3/time", timeout=5) as response:
        assert response.status == 200
    process.send_signal(number)
    out, err = process.communicate(timeout=10)
    assert process.returncode == 0
    assert out == f"listening on ws://127.0.0.1:{port} and http://127.0.0.1:{port}\n"
    assert "Traceback" not in err
    assert all(line.startswith("{") for line in err.splitlines())


def test_exit_when_finished(recording_of: Callable[..., Path]) -> None:
    done = run(
        "replay",
        recording_of([1, 2, 3]),
        "--speed",
        "max",
        "--no-wait-for-subscribers",
        "--exit-when-finished",
    )
    assert done.returncode == 0
    assert "last frame sent" in done.stderr


async def test_shutdown_closes_connections_with_1001(
    started: Callable[..., tuple["subprocess.Popen[str]", int]],
) -> None:
    process, port = started("generate", "--trade-rate", "100")
    async with websockets.connect(f"ws://127.0.0.1:{port}/ws/btcusdt@trade") as ws:
        await ws.recv()
        process.send_signal(signal.SIGTERM)
        async for _ in ws:
            pass
        assert ws.close_code == 1001
    assert await asyncio.to_thread(process.wait, 10) == 0


async def test_shutdown_with_a_slow_reader(
    started: Callable[..., tuple["subprocess.Popen[str]", int]], recording_of: Callable[..., Path]
) -> None:
    process, port = started("replay", recording_of(range(1, 60_001)), "--speed", "max")
    with socket.create_connection(("127.0.0.1", port)) as slow:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.sendall(
            b"GET /stream?streams=btcusdt@trade HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n"
            b"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        assert slow.recv(12) == b"HTTP/1.1 101"
        await asyncio.sleep(0.5)  # the market may still run or wait for the reader: both must stop
        process.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(process.wait, 10) == 0
