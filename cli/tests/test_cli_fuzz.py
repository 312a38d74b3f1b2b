"""Whatever a service or a cluster answers, the commands end with a text for people, and it moves no cursor."""

import io
import re
from datetime import UTC, datetime

import aiohttp
import msgspec
import pytest
from rich.console import Console

from marketfeed_cli import observe
from marketfeed_cli.kubectl import tables
from marketfeed_cli.status import _ask, _printable, _render, read_answer
from marketfeed_cli.terminal import shown, shown_lines
from marketfeed_devtools.hostile import meet
from marketfeed_devtools.seeds import fuzz_rng, fuzz_rounds
from marketfeed_wire.status import WorkerStatus

WORKER = {
    "version": "1", "venue": "v", "shard": "s", "ready": False, "reason": "why", "symbols": {}, "connections": [],
    "refused_symbols": {"AA": "not listed"}, "received": {"t": 1}, "acknowledged": {"t": 1}, "failed": {}, "pending": 0,
    "assignment": "",
}  # fmt: skip
CONSUMER = {
    "version": "1", "group": "g", "ready": True, "reason": "",
    "partitions": [{"topic": "t", "partition": 0, "next_offset": 90, "end_offset": 100}],
    "inserted": {"trades": 1}, "duplicates": {}, "dead_letters": 0, "symbols": {}, "latency_p50_us": 1,
    "latency_p99_us": None,
}  # fmt: skip
SHORT = aiohttp.ClientTimeout(total=2)
"""Some responses end a connection in a way that a client can only wait out; users have such a bound, a longer one."""
STYLES = re.compile(r"\x1b\[[0-9;]*m")


def rendered(answer) -> str:
    output = io.StringIO()
    console = Console(file=output, width=400, color_system=None)
    for piece in _render("http://x", _printable(answer)):
        console.print(piece)
    return output.getvalue()


def fit_for_a_terminal(text: str) -> bool:
    return all(each.isprintable() or each == "\n" for each in STYLES.sub("", text))


async def test_no_response_ends_a_command_or_reaches_the_terminal_raw():
    answered = 0

    async def commands(base: str, rounds: int) -> None:
        nonlocal answered
        async with aiohttp.ClientSession(timeout=SHORT) as session:
            for _ in range(rounds):
                answer = await _ask(session, base)
                answered += not isinstance(answer, str)
                assert fit_for_a_terminal(rendered(answer)), answer
                await observe.worker_status(session, base)
                await observe.consumer_status(session, base)

    await meet(fuzz_rng("cli"), [WORKER, CONSUMER], fuzz_rounds(), commands)
    assert answered > 0


@pytest.mark.parametrize(
    "text", ["\x1b[31mred", "\x1b]0;title\x07", "a\rb", "\u202etxt", "\x9b31m", "a\x08\x08b", "a\tb"]
)
def test_a_text_of_others_moves_no_cursor(text):
    worker = {**WORKER, "reason": text, "venue": text, "refused_symbols": {text: text}}
    answer = read_answer(msgspec.json.encode(worker))
    assert isinstance(answer, WorkerStatus)
    assert fit_for_a_terminal(rendered(answer))
    feed = {
        "metadata": {"namespace": "n", "name": "f"}, "spec": {"venue": text},
        "status": {
            "symbols": {"resolved": 1, "unknown": [text], "unknownCount": 1},
            "conditions": [{
                "type": "Ready", "status": "False", "reason": text, "message": text,
                "lastTransitionTime": "2026-11-30T00:00:00Z",
            }],
        },
    }  # fmt: skip
    output = io.StringIO()
    tables.status(
        Console(file=output, width=400, color_system=None), shown([feed]), datetime(2026, 11, 30, tzinfo=UTC)
    )
    assert fit_for_a_terminal(output.getvalue())
    assert fit_for_a_terminal(shown_lines(f"one\n{text}\nthree"))
    assert "one\n" in shown_lines(f"one\n{text}\nthree"), "lines stay lines"
