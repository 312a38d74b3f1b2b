"""Runs of the command: whole pipelines on embedded infrastructure."""

import gzip
import json
import os
import signal
import urllib.request
from itertools import islice
from pathlib import Path
from typing import Any

import psycopg
import pytest
from cli_home import Home

from marketfeed_cli import services
from marketfeed_cli.process import Parts
from marketfeed_devtools.waiting import until

pytestmark = pytest.mark.integration

NOTHING: tuple[list[str], list[str]] = ([], [])


def stages(stream: dict[str, Any]) -> list[int]:
    return [stream[name] for name in ("sent", "received", "acknowledged", "committed")]


def test_demo_stores_trades_and_verifies_completeness(home: Home) -> None:
    run = home.run("demo", "--source", "simulated", "--seconds", "3", "--symbols", "BTCUSDT,ETHUSDT")
    assert run.wait() == 0, run.err
    assert "venue      simulator at ws://127.0.0.1:" in run.out
    assert "complete: all" in run.out
    assert home.leftovers() == NOTHING


def test_demo_json_report_has_equal_counts_at_every_stage(home: Home) -> None:
    run = home.run("demo", "--source", "simulated", "--seconds", "3", "--output", "json")
    assert run.wait() == 0, run.err
    report = run.report()
    assert (report["result"], report["problems"], report["missing"]) == ("complete", [], 0)
    for stream in (report["trades"], report["quotes"]):
        assert stream["sent"] > 0
        assert stages(stream) == [stream["sent"]] * 4
        assert 0 < stream["latency"]["p50_us"] <= stream["latency"]["p99_us"]
    assert set(report["symbols"]) == {"BTCUSDT", "ETHUSDT", "SOLUSDT"}
    assert sum(each["committed"] for each in report["symbols"].values()) == report["trades"]["committed"]


def test_replay_stores_the_whole_recording(home: Home, recording: Path) -> None:
    run = home.run("replay", str(recording), "--output", "json")
    assert run.wait() == 0, run.err
    report = run.report()
    assert report["result"] == "complete"
    assert stages(report["trades"]) == [18_556] * 4
    assert stages(report["quotes"]) == [79_815] * 4
    assert "98,371 of 98,371 frames stored" in run.err
    assert home.leftovers() == NOTHING


def test_demo_of_a_recording_ends_with_the_recording(home: Home, recording: Path, tmp_path: Path) -> None:
    short = shortened(recording, tmp_path, 1_000)
    run = home.run("demo", "--source", f"recording={short}", "--seconds", "60", "--output", "json")
    assert run.wait() == 0, run.err
    report = run.report()
    assert stages(report["trades"])[0] + stages(report["quotes"])[0] == 1_000
    assert report["result"] == "complete"
    assert report["seconds"] < 50


def test_demo_of_a_long_recording_ends_in_time_and_verifies_received_trades(
    home: Home, recording: Path
) -> None:
    run = home.run("demo", "--source", f"recording={recording}", "--seconds", "3", "--output", "json")
    assert run.wait() == 0, run.err
    report = run.report()
    assert (report["result"], report["trades"]["sent"]) == ("complete", None)
    assert 0 < report["trades"]["committed"] < 18_556


def test_replay_of_a_recording_with_gaps_is_complete_with_absent_ids(
    home: Home, recording: Path, tmp_path: Path
) -> None:
    with_gap = tmp_path / "with_gap.frames"
    lines = shortened(recording, tmp_path, 5_000).read_bytes().splitlines(keepends=True)
    trades = [line for line in lines if b"btcusdt@trade" in line]
    with_gap.write_bytes(b"".join(trades[:100] + trades[150:]))
    run = home.run("replay", str(with_gap), "--output", "json")
    assert run.wait() == 0, run.err
    (symbol,) = run.report()["symbols"].values()
    assert (symbol["absent_at_venue"], symbol["committed"]) == (50, len(trades) - 50)


@pytest.mark.parametrize(
    "moment",
    ["marketfeed demo", "  venue", "  database", "  Kafka", "  consumers", "  worker", " acknowledged "],
)
def test_interrupt_by_ctrl_c_leaves_no_process_and_no_folder(home: Home, moment: str) -> None:
    run = home.run("demo", "--source", "simulated", "--seconds", "600")
    run.wait_for_output(moment)
    assert run.wait(signal.SIGINT, seconds=30) == 130
    assert home.leftovers() == NOTHING
    assert "Traceback" not in run.err


def test_interrupt_by_sigterm_ends_a_replay(home: Home, recording: Path) -> None:
    run = home.run("replay", str(recording))
    run.wait_for_output("frames stored")
    assert run.wait(signal.SIGTERM, seconds=30) == 128 + signal.SIGTERM
    assert home.leftovers() == NOTHING


def test_kill_of_a_demo_leaves_no_process(home: Home) -> None:
    run = home.run("demo", "--source", "simulated", "--seconds", "600")
    run.wait_for_output(" acknowledged ")
    assert len(home.processes()) > 6
    run.wait(signal.SIGKILL)
    until(lambda: not home.processes(), "the exit of all parts")


def test_kill_of_a_part_ends_the_demo_with_its_last_log_lines(home: Home) -> None:
    run = home.run("demo", "--source", "simulated", "--seconds", "600")
    run.wait_for_output(" acknowledged ")
    (worker,) = (pid for pid, command in home.processes().items() if "-m marketfeed_workers" in command)
    os.kill(worker, signal.SIGKILL)
    assert run.wait() == 1
    assert "error: the worker was killed by SIGKILL; its last lines:" in run.err
    assert home.leftovers() == NOTHING


def test_keep_option_keeps_components_running_and_prints_endpoints(home: Home) -> None:
    run = home.run("demo", "--source", "simulated", "--seconds", "2", "--keep", "--output", "json")
    run.wait_for_output("Still running; Ctrl-C stops and removes it all.")
    report = run.report()
    assert report["result"] == "complete"
    endpoints = report["endpoints"]
    before = count_trades(endpoints["database"])
    assert before >= report["trades"]["committed"]
    until(lambda: count_trades(endpoints["database"]) > before, "trades after the report")
    service_urls = [url for name, url in endpoints.items() if name.startswith(("worker", "consumer"))]
    assert len(service_urls) == 3
    status = home.run("status", *service_urls)
    assert status.wait() == 0, status.out
    assert "BTCUSDT" in status.out
    assert all(url in run.err for url in service_urls)
    assert run.wait(signal.SIGINT, seconds=30) == 0
    assert home.leftovers() == NOTHING


async def test_live_venue_that_loses_trades_is_reported_as_incomplete(home: Home, parts: Parts) -> None:
    venue = await venue_of(parts, home.temporary.parent)
    for endpoint in ("trades", "aggTrades", "historicalTrades"):
        fault(venue, "rest_error", status=500, endpoint=endpoint)
    run = live(home, venue, GAP_HOLD_SECONDS="1")
    run.wait_for_output("  worker")
    # Drop frames after the first received one: earlier ids are not expected.
    until(lambda: any(each["frames"] for each in control(venue, "connections")), "frames to the worker")
    dropped = fault(venue, "drop", streams=["btcusdt@trade"], after_frames=50, count=5)
    assert run.wait() == 1, run.err
    report = run.report()
    (injected,) = [each for each in control(venue, "faults") if each["id"] == dropped["id"]]
    assert injected["hits"] == 5
    assert (report["result"], report["missing"]) == ("incomplete", 5)
    (problem,) = report["problems"]
    assert problem.startswith("BTCUSDT: 5 trade ids missing: ")


async def test_live_venue_completeness_is_verified_by_trade_ids(home: Home, parts: Parts) -> None:
    venue = await venue_of(parts, home.temporary.parent)
    run = live(home, venue)
    assert run.wait() == 0, run.err
    report = run.report()
    assert (report["result"], report["trades"]["sent"]) == ("complete", None)
    assert report["source"] == f"binance_us at ws://{venue}"
    assert report["trades"]["committed"] > 0


@pytest.mark.parametrize(("symbol", "code", "output"), [("BTCUSDT", 0, "TRADING"), ("NOSUCH", 1, "NOSUCH")])
async def test_validate_uses_the_venues_symbol_list(
    home: Home, parts: Parts, symbol: str, code: int, output: str
) -> None:
    venue = await venue_of(parts, home.temporary.parent)
    run = home.run("validate", "--symbols", symbol, BINANCE_REST_BASE=f"http://{venue}")
    assert run.wait() == code
    assert output in run.out


def live(home: Home, venue: str, **environment: str) -> Any:
    return home.run(
        *("demo", "--source", "live", "--seconds", "5", "--symbols", "BTCUSDT", "--output", "json"),
        BINANCE_WS_BASE=f"ws://{venue}",
        BINANCE_REST_BASE=f"http://{venue}",
        **environment,
    )


async def venue_of(parts: Parts, folder: Path) -> str:
    """Start a simulator for the duration of the test; return host:port."""
    file = folder / "venue.port"
    parts.start(services.simulator({"PATH": "/usr/bin"}, file, ["generate", "--trade-rate", "50"]))

    async def is_written() -> bool:
        return file.exists()

    await parts.until(is_written, seconds=30, what="the venue's start")
    return f"127.0.0.1:{file.read_text().strip()}"


def fault(venue: str, name: str, **fields: Any) -> dict[str, Any]:
    body = json.dumps({"fault": name, **fields}).encode()
    with urllib.request.urlopen(f"http://{venue}/control/faults", data=body, timeout=10) as response:
        return dict(json.load(response))


def control(venue: str, resource: str) -> list[dict[str, Any]]:
    with urllib.request.urlopen(f"http://{venue}/control/{resource}", timeout=10) as response:
        return list(json.load(response))


def count_trades(dsn: str) -> int:
    with psycopg.connect(dsn) as connection:
        row = connection.execute("SELECT count(*) FROM trades").fetchone()
    assert row is not None
    return int(row[0])


def shortened(recording: Path, folder: Path, frames: int) -> Path:
    """Write the first frames of a recording to an uncompressed file."""
    file = folder / "short.frames"
    with gzip.open(recording) as lines, file.open("wb") as short:
        short.writelines(islice(lines, frames))
    return file
