"""Programs of the machine, and exit codes of commands."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from marketfeed_devtools.programs import CommandFailed, Unavailable, exit_code, require, run


def test_program_is_found_in_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Unavailable, match="marketfeed-nowhere is not installed: shows what is lacking"):
        require("marketfeed-nowhere", "shows what is lacking")
    (tmp_path / "marketfeed-nowhere").touch(0o755)
    assert require("marketfeed-nowhere", "is there now") == str(tmp_path / "marketfeed-nowhere")


def test_command_output_includes_stderr_unless_separated() -> None:
    command = [sys.executable, "-c", "import sys; print('out', flush=True); print('error', file=sys.stderr)"]
    assert run(command) == "out\nerror\n"
    assert run(command, stderr=subprocess.PIPE) == "out\n"


@pytest.mark.parametrize("options", [{}, {"stderr": subprocess.PIPE}], ids=["together", "errors apart"])
def test_command_failure_shows_the_end_of_its_output(options: dict[str, int]) -> None:
    code = "import sys\nfor n in range(100): print(f'line {n}')\nsys.exit('no more')"
    with pytest.raises(CommandFailed) as failure:
        run([sys.executable, "-c", code], **options)
    head, *tail = str(failure.value).splitlines()
    if not options:
        assert head.startswith(sys.executable)
    assert "ended with 1:" in str(failure.value)
    assert tail[-1] == "no more" or "no more" in tail
    assert "line 99" in tail
    assert "line 0" not in tail


def _lacks() -> None:
    raise Unavailable("no oven")


def _fails() -> None:
    raise CommandFailed("bake ended with 1")


def _fails_unseen() -> None:
    raise subprocess.CalledProcessError(2, "bake", stderr="burnt")


@pytest.mark.parametrize(
    ("work", "code", "said"),
    [
        (lambda: None, 0, ""),
        (_fails, 1, "failed: bake ended with 1\n"),
        (_fails_unseen, 1, "failed: Command 'bake' returned non-zero exit status 2.\nburnt\n"),
        (_lacks, 3, "cannot be done here: no oven\n"),
    ],
)
def test_exit_codes(
    work: Callable[[], object], code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_code(work) == code
    assert capsys.readouterr().err == said
