"""Benchmark of many connections and several processes: 1,000 symbols x 2 streams over 20 connections.

    python benchmarks/ingest_scale.py --rounds 3

The recording's frames are distributed over the symbols; every connection has 50 symbols. Each worker is a process with
an equal share of the symbols. Output as in ingest.py: a JSON line per figure to stdout, a table to stderr.
"""

import argparse
import itertools
import os
import string
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import ingest
import ingest_frames
import ingest_stack
import ingest_subjects
import sink_stack

SYMBOLS_PER_CONNECTION = 50


def symbols(count: int) -> list[str]:
    """Return generated names of the usual length."""
    letters = itertools.product(string.ascii_uppercase, repeat=3)
    return ["".join(name) + "USDT" for name in itertools.islice(letters, count)]


def turn(
    bench: ingest_subjects.Bench, names: list[str], processes: int, events: int, rate: int
) -> tuple[float, float, float, float]:
    """Run `processes` workers; return (CPU us per event, events/s, MiB of the largest process, p99 in ms).

    Args:
        bench: The environment.
        names: Symbols.
        processes: Number of workers.
        events: Number of events over all connections.
        rate: Events per second; 0 for full speed.
    """
    connections = len(names) // SYMBOLS_PER_CONNECTION
    share = len(names) // processes
    with ExitStack() as stack:
        workers = []
        for number in range(processes):
            own = names[number * share : (number + 1) * share]
            so_far = len(own) // SYMBOLS_PER_CONNECTION * (number + 1)
            workers.append(
                ingest_subjects.Worker(
                    stack, bench, own, so_far, WS_SHARD_SIZE=str(SYMBOLS_PER_CONNECTION), SHARD=str(number)
                )
            )
        before = [ingest_stack.usage(worker.process.pid) for worker in workers]
        began = bench.server.go(events // connections, rate)
        for worker in workers:
            worker.process.until(
                lambda worker=worker: worker.has_stored(events // processes), "the last event"
            )
        seconds = time.monotonic() - began
        after = [ingest_stack.usage(worker.process.pid) for worker in workers]
        for worker in workers:
            worker.check(events // processes)
        buckets: dict[float, int] = {}
        for worker in workers:
            for bound, count in worker.scrape().buckets.items():
                buckets[bound] = buckets.get(bound, 0) + count
    for worker in workers:
        bench.broker.delete(*worker.all_topics)
    used = sum(now.cpu_seconds - then.cpu_seconds for now, then in zip(after, before, strict=True))
    peak = max(now.peak_rss_bytes for now in after)
    return used / events * 1e6, events / seconds, peak / 2**20, ingest_stack.quantile(buckets, 0.99) * 1e3


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--symbols", type=int, default=1000, help="a multiple of 50 and of the processes")
    parser.add_argument(
        "--events", type=int, default=1_000_000, help="events of a turn, over all connections"
    )
    parser.add_argument("--processes", default=f"1,{os.cpu_count()}", help="numbers of workers")
    parser.add_argument("--rate", type=int, default=0, help="events/s over all connections; 0 for full speed")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--recording", type=Path, default=ingest_frames.RECORDING)
    options = parser.parse_args()
    names = symbols(options.symbols)
    connections = options.symbols // SYMBOLS_PER_CONNECTION
    report = ingest.Report("ingest_scale")
    figures: dict[int, list[tuple[float, float, float, float]]] = {}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="marketfeed-bench-")))
        description, frames = ingest_frames.source(options.recording)
        ingest.log(f"{description}: {options.symbols} symbols, {connections} connections")
        tapes = []
        for number in range(connections):
            own = names[number * SYMBOLS_PER_CONNECTION : (number + 1) * SYMBOLS_PER_CONNECTION]
            own_frames = ingest_frames.spread(frames, own, options.events // connections)
            tapes.append(ingest_frames.write(folder / f"tape{number}", own_frames))
        broker = ingest_stack.Broker(stack.enter_context(sink_stack.kafka(folder)))
        server = stack.enter_context(ingest_stack.frame_server(folder, *(tape.path for tape in tapes)))
        bench = ingest_subjects.Bench(folder, broker, server, tapes[0])
        for number in range(options.rounds):
            for processes in map(int, options.processes.split(",")):
                one = turn(bench, names, processes, options.events, options.rate)
                figures.setdefault(processes, []).append(one)
                ingest.log(
                    f"round {number + 1}  {processes} processes  {one[0]:.2f} us CPU per event  {one[1]:,.0f} events/s"
                    f"  peak {one[2]:.0f} MiB  p99 {one[3]:.1f} ms"
                )
    for processes, own_figures in figures.items():
        cpu, rates, peaks, p99 = zip(*own_figures, strict=True)
        report.add(f"cpu_{processes}_processes", "us/event", list(cpu), min)
        report.add(f"rate_{processes}_processes", "events/s", list(rates), max)
        report.add(f"peak_rss_{processes}_processes", "MiB", list(peaks), min)
        if options.rate:
            report.add(f"p99_{processes}_processes", "ms", list(p99), min)
    ingest.log(report.table())


if __name__ == "__main__":
    main()
