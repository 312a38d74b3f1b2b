"""Benchmark of ingestion: marketfeed's worker, a minimal loop and cryptofeed on the same recorded frames in one run.

    python benchmarks/ingest.py --events 1000000 --rounds 5

A frame server replays the recording (../shared/recordings; otherwise generated frames) over loopback. The subjects run
in turns; each reads, normalizes and publishes to Apache Kafka with acks=all and idempotence (lz4, linger 5 ms). CPU is
user and system time of all threads of the subject's process from its first to its last event. A table is printed to
stderr, a JSON line per figure to stdout. On a machine with other load compare CPU, and only figures of one run: the
gauge (decode and encode of the recording) measures the speed of the machine in each round.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import ingest_frames
import ingest_stack
import ingest_stages
import ingest_subjects
import sink_stack
from ingest_subjects import Bench, Turn

GOALS = {
    "marketfeed_cpu_us": "goal: at most 5 in a quiet run",
    "floor_over_marketfeed": "goal: at least 0.60",
    "cryptofeed_over_marketfeed": "goal: at least 25",
    "socket_to_ack_50000_p99_ms": "goal: below 25",
}


class Report:
    """Prints figures as JSON lines to stdout, and collects them for the table at the end."""

    def __init__(self, benchmark: str) -> None:
        self._benchmark = benchmark
        self._rows: list[tuple[str, str, str]] = []

    def add(self, figure: str, unit: str, values: list[float], best: Callable[[list[float]], float]) -> None:
        """Add a figure.

        Args:
            figure: Name of the figure.
            unit: Its unit.
            values: Value of each round.
            best: Selects the best value, `min` or `max`.
        """
        row = {
            "benchmark": self._benchmark, "figure": figure, "unit": unit, "best": round(best(values), 3),
            "median": round(statistics.median(values), 3), "all": [round(value, 3) for value in values],
            "cores": os.cpu_count(),
        }  # fmt: skip
        print(json.dumps(row), flush=True)
        self._rows.append(
            (f"{figure} ({unit})", f"{row['best']:>12,.2f} {row['median']:>12,.2f}", GOALS.get(figure, ""))
        )

    def table(self) -> str:
        head = f"{'':44} {'best':>12} {'median':>12}"
        return "\n".join(
            [head, *(f"{name:44} {values}  {goal}".rstrip() for name, values, goal in self._rows)]
        )


def full_speed(report: Report, bench: Bench, aggregates: Bench, options: argparse.Namespace) -> None:
    """Measure each subject at full speed, in turns.

    Args:
        report: Report to add the figures to.
        bench: The environment.
        aggregates: The environment with aggTrade frames, for cryptofeed.
        options: Command line options.
    """
    subjects: dict[str, Callable[[], Turn]] = {
        "receive": lambda: ingest_subjects.receive_only(bench, options.events),
        "floor": lambda: ingest_subjects.floor(bench, options.events),
        "marketfeed": lambda: ingest_subjects.marketfeed(bench, options.events),
    }
    if not options.no_peer:
        subjects["cryptofeed"] = lambda: ingest_subjects.cryptofeed(aggregates, options.peer_events)
    stages = ingest_stages.Stages(ingest_frames.source(options.recording)[1], bench.broker.address)
    turns: dict[str, list[Turn]] = {name: [] for name in subjects}
    gauge: list[float] = []
    for number in range(options.rounds):
        gauge.append(stages.gauge())
        log(f"round {number + 1}  gauge {gauge[-1]:.2f} us")
        for name, run in subjects.items():
            turn = run()
            turns[name].append(turn)
            log(f"round {number + 1}  {name:11} {turn}")
    report.add("gauge_cpu", "us", gauge, min)
    for name, own in turns.items():
        report.add(f"{name}_cpu_us", "us/event", [turn.cpu_us for turn in own], min)
        report.add(f"{name}_per_core", "events/s", [1e6 / turn.cpu_us for turn in own], max)
        report.add(f"{name}_rate", "events/s", [turn.events / turn.seconds for turn in own], max)
        report.add(f"{name}_peak_rss", "MiB", [turn.peak_rss_bytes / 2**20 for turn in own], min)
    conflated = [turn.notes["conflated"] / turn.events * 100 for turn in turns["marketfeed"]]
    report.add("marketfeed_conflated", "%", conflated, min)
    for peer in ("floor", "cryptofeed"):
        if peer in turns:
            pairs = zip(turns[peer], turns["marketfeed"], strict=True)
            report.add(
                f"{peer}_over_marketfeed", "ratio of CPU", [a.cpu_us / b.cpu_us for a, b in pairs], max
            )


def by_stage(report: Report, bench: Bench, options: argparse.Namespace) -> None:
    """Measure each stage separately.

    Args:
        report: Report to add the figures to.
        bench: The environment.
        options: Command line options.
    """
    stages = ingest_stages.Stages(ingest_frames.source(options.recording)[1], bench.broker.address)
    bench.broker.create(*ingest_stages.TOPICS)
    costs: dict[str, list[float]] = {}
    for _ in range(options.rounds):
        for name in ("decode", "encode", "pipeline", "publish", "produce_alone"):
            costs.setdefault(name, []).append(getattr(stages, name)())
    costs["continuity_and_counting"] = [
        whole - decode - encode
        for whole, decode, encode in zip(costs["pipeline"], costs["decode"], costs["encode"], strict=True)
    ]
    for name, values in costs.items():
        report.add(f"stage_{name}", "us/event", values, min)


def at_a_rate(report: Report, bench: Bench, rate: int, options: argparse.Namespace) -> None:
    """Measure latency at a constant rate.

    Args:
        report: Report to add the figures to.
        bench: The environment.
        rate: Events per second.
        options: Command line options.
    """
    turns: list[Turn] = []
    for number in range(options.rounds):
        turns.append(ingest_subjects.marketfeed(bench, rate * options.paced_seconds, rate))
        p50, p99 = (turns[-1].notes[name] for name in ("p50_ms", "p99_ms"))
        log(f"round {number + 1}  {rate}/s {turns[-1]}  socket to ack p50 {p50:.1f} ms, p99 {p99:.1f} ms")
    for name in ("p50_ms", "p99_ms"):
        report.add(f"socket_to_ack_{rate}_{name}", "ms", [turn.notes[name] for turn in turns], min)
    report.add(f"marketfeed_cpu_at_{rate}", "us/event", [turn.cpu_us for turn in turns], min)


def log(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--events", type=int, default=1_000_000, help="events of a turn at full speed")
    parser.add_argument("--peer-events", type=int, default=40_000, help="events of cryptofeed's turn")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--paced-seconds", type=int, default=10, help="duration of a turn at a constant rate")
    parser.add_argument("--rates", default="10000,50000", help="rates of the latency measurement in events/s")
    parser.add_argument("--only", default="full,stages,paced", help="subset of full,stages,paced")
    parser.add_argument("--no-peer", action="store_true", help="without cryptofeed")
    parser.add_argument("--recording", type=Path, default=ingest_frames.RECORDING)
    options = parser.parse_args()
    parts = options.only.split(",")
    rates = [int(rate) for rate in options.rates.split(",")] if "paced" in parts else []
    longest = max(
        [
            options.events,
            *(rate * (options.paced_seconds + ingest_subjects.WARM_UP_SECONDS) for rate in rates),
        ]
    )
    report = Report("ingest")
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="marketfeed-bench-")))
        name, frames = ingest_frames.source(options.recording)
        log(f"{name}: preparing {longest:,} frames; {os.cpu_count()} cores; Apache Kafka from Maven")
        tape = ingest_frames.write(folder / "tape", ingest_frames.repeated(frames, longest))
        aggregates = ingest_frames.write(
            folder / "aggregates",
            ingest_frames.as_aggregates(ingest_frames.repeated(frames, options.peer_events)),
        )
        broker = ingest_stack.Broker(stack.enter_context(sink_stack.kafka(folder)))
        server = stack.enter_context(ingest_stack.frame_server(folder, tape.path, aggregates.path))
        bench = Bench(folder, broker, server, tape)
        if "full" in parts:
            full_speed(report, bench, Bench(folder, broker, server, aggregates), options)
        if "stages" in parts:
            by_stage(report, bench, options)
        for rate in rates:
            at_a_rate(report, bench, rate, options)
    log(report.table())


if __name__ == "__main__":
    main()
