"""Supervision of child processes: start, exit detection, shutdown, no leftovers."""

import asyncio
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from cli_processes import is_alive

from marketfeed_cli.process import Command, Layer, Part, PartFailed, Parts
from marketfeed_devtools.waiting import until
from marketfeed_service.errors import StartupError

ENVIRONMENT = {"PATH": "/usr/bin:/bin"}
OBEDIENT = (
    "import signal, time; print('up', flush=True); signal.sigwait([signal.SIGTERM]); print('bye', flush=True)"
)
STUBBORN = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); "
    "time.sleep(600)"
)


def python(name: str, code: str, layer: Layer = Layer.SERVICE) -> Command:
    if "sigwait" in code:
        code = f"import signal; signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM]); {code}"
    return Command(name, [sys.executable, "-c", code], ENVIRONMENT, layer=layer)


async def up(parts: Parts, part: Part) -> None:
    async def is_up() -> bool:
        return "up" in part.log.read_text()

    await parts.until(is_up, seconds=30, what=f"{part.name} up")


async def test_stop_is_orderly(parts: Parts) -> None:
    part = parts.start(python("clerk", OBEDIENT))
    await up(parts, part)
    await parts.stop([part])
    assert part.exit_code == 0
    assert part.log.read_text() == "up\nbye\n"
    parts.check()


async def test_stop_kills_a_part_that_ignores_the_signal(parts: Parts) -> None:
    part = parts.start(python("mule", STUBBORN))
    await up(parts, part)
    await parts.stop([part], seconds=0.1)
    assert part.exit_code == -signal.SIGKILL


async def test_stop_works_for_a_paused_part(parts: Parts) -> None:
    part = parts.start(python("sleeper", OBEDIENT))
    await up(parts, part)
    part.signal(signal.SIGSTOP)
    await parts.stop([part])
    assert part.exit_code == 0


async def test_exit_of_a_part_is_reported_with_its_last_log_lines(parts: Parts) -> None:
    parts.start(python("victim", "import sys; print('the disk is full'); sys.exit(3)"))
    with pytest.raises(PartFailed, match="the victim exited with code 3; its last lines:\nthe disk is full"):
        await parts.until(_never, seconds=30, what="nothing")


async def test_exit_of_a_killed_part_is_reported_with_the_signal(parts: Parts) -> None:
    part = parts.start(python("victim", OBEDIENT))
    await up(parts, part)
    part.signal(signal.SIGKILL)
    with pytest.raises(PartFailed, match="the victim was killed by SIGKILL"):
        await parts.until(_never, seconds=30, what="nothing")


async def test_timeout_error_contains_the_last_log_lines(parts: Parts) -> None:
    part = parts.start(python("clerk", OBEDIENT))
    await up(parts, part)
    with pytest.raises(
        StartupError, match=r"its start did not happen within 0.1 s\nlast lines of the clerk:\nup"
    ):
        await parts.until(_never, seconds=0.1, what="its start", about=[part])


async def test_run_waits_for_completion_and_raises_on_failure(parts: Parts) -> None:
    await parts.run(python("good", "print('done')"), seconds=30)
    with pytest.raises(PartFailed, match="the bad exited with code 1"):
        await parts.run(python("bad", "raise SystemExit(1)"), seconds=30)
    with pytest.raises(StartupError, match="the end of the slow did not happen within"):
        await parts.run(python("slow", OBEDIENT), seconds=0.1)


async def test_stop_order_is_higher_layers_first(tmp_path: Path) -> None:
    file = tmp_path / "ends"
    code = (
        "import signal; signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM]); print('up', flush=True); "
        f"signal.sigwait([signal.SIGTERM]); open({str(file)!r}, 'a').write('{{}} ')"
    )
    async with Parts(tmp_path) as parts:
        for layer in (Layer.INFRASTRUCTURE, Layer.SERVICE, Layer.VENUE):
            part = parts.start(
                Command(layer.name, [sys.executable, "-c", code.format(layer.name)], ENVIRONMENT, layer)
            )
            await up(parts, part)
    assert file.read_text().split() == ["SERVICE", "VENUE", "INFRASTRUCTURE"]


async def test_cancellation_stops_all_parts(tmp_path: Path) -> None:
    started: list[Part] = []
    is_up = asyncio.Event()

    async def work() -> None:
        async with Parts(tmp_path) as parts:
            started.append(parts.start(python("clerk", OBEDIENT)))
            await up(parts, started[0])
            is_up.set()
            await parts.until(_never, seconds=600, what="nothing")

    task = asyncio.create_task(work())
    await is_up.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert started[0].exit_code == 0


@pytest.mark.skipif(sys.platform != "linux", reason="PR_SET_PDEATHSIG exists on Linux only")
def test_kill_of_the_parent_terminates_its_parts(tmp_path: Path) -> None:
    code = f"""
import asyncio, pathlib, sys
from marketfeed_cli.process import Command, Parts
async def main():
    async with Parts(pathlib.Path({str(tmp_path)!r})) as parts:
        part = parts.start(Command("mule", [sys.executable, "-c", {STUBBORN!r}], {ENVIRONMENT!r}))
        while "up" not in part.log.read_text():
            await asyncio.sleep(0.02)
        print(part.pid, flush=True)
        await asyncio.sleep(600)
asyncio.run(main())
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert is_alive(pid)
        parent.kill()
        until(lambda: not is_alive(pid), "the exit of the part")


def test_secrets_in_an_environment_are_not_in_repr() -> None:
    assert "hunter2" not in repr(
        Command("clerk", ["/bin/true"], {"DATABASE_URL": "postgresql://x:hunter2@y/z"})
    )


async def _never() -> bool:
    return False
