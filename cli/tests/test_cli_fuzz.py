"""Arbitrary responses of services and clusters: commands print readable text without control sequences."""

import io
import re
from datetime import UTC, datetime

import aiohttp
import msgspec
import pytest
from rich.console import Console

from marketfeed_cli import observe
from marketfeed_cli.kubectl import tables
from marketfeed_cli.status import _fetch, _printable, _render, decode_status
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
"""Some responses can only end by a timeout; the command has a longer one."""
STYLES = re.compile(r"\x1b\[[0-9;]*m")


def rendered(result) -> str:
    output = io.StringIO()
    console = Console(file=output, width=400, color_system=None)
    for renderable in _render("http://x", _printable(result)):
        console.print(renderable)
    return output.getvalue()


def is_printable(text: str) -> bool:
    return all(each.isprintable() or each == "\n" for each in STYLES.sub("", text))


async def test_fuzz_of_responses_neither_crashes_commands_nor_reaches_the_terminal_raw():
    valid = 0

    async def commands(base: str, rounds: int) -> None:
        nonlocal valid
        async with aiohttp.ClientSession(timeout=SHORT) as session:
            for _ in range(rounds):
                result = await _fetch(session, base)
                valid += not isinstance(result, str)
                assert is_printable(rendered(result)), result
                await observe.worker_status(session, base)
                await observe.consumer_status(session, base)

    await meet(fuzz_rng("cli"), [WORKER, CONSUMER], fuzz_rounds(), commands)
    assert valid > 0


@pytest.mark.parametrize(
    "text", ["\x1b[31mred", "\x1b]0;title\x07", "a\rb", "\u202etxt", "\x9b31m", "a\x08\x08b", "a\tb"]
)
def test_terminal_output_has_no_control_sequences(text):
    worker = {**WORKER, "reason": text, "venue": text, "refused_symbols": {text: text}}
    result = decode_status(msgspec.json.encode(worker))
    assert isinstance(result, WorkerStatus)
    assert is_printable(rendered(result))
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
    assert is_printable(output.getvalue())
    assert is_printable(shown_lines(f"one\n{text}\nthree"))
    assert "one\n" in shown_lines(f"one\n{text}\nthree"), "line breaks are kept"
