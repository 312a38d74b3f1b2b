"""Soak test of a worker's memory: the recording is repeated at full speed, and resident memory is sampled.

    python benchmarks/ingest_soak.py --seconds 600

Prints a JSON line with the slope of the samples (least squares, without the first fifth as warm-up) and the number of
published messages. All events are verified at the end as in ingest.py.
"""

import argparse
import json
import os
import statistics
import tempfile
import threading
import time
from contextlib import ExitStack
from pathlib import Path

import ingest
import ingest_frames
import ingest_stack
import ingest_subjects
import psutil
import sink_stack

SAMPLE_SECONDS = 2.0


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=int, default=600)
    parser.add_argument("--recording", type=Path, default=ingest_frames.RECORDING)
    options = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="marketfeed-bench-")))
        description, frames = ingest_frames.source(options.recording)
        tape = ingest_frames.write(folder / "tape", ingest_frames.repeated(frames, len(frames)))
        broker = ingest_stack.Broker(stack.enter_context(sink_stack.kafka(folder)))
        server = stack.enter_context(ingest_stack.frame_server(folder, tape.path))
        bench = ingest_subjects.Bench(folder, broker, server, tape)
        worker = ingest_subjects.Worker(stack, bench, list(ingest_frames.SYMBOLS), 1)
        ingest.log(f"{description}, repeated for {options.seconds} s")
        sent: list[int] = []
        sender = threading.Thread(target=lambda: sent.append(server.loop(options.seconds)))
        began = time.monotonic()
        sender.start()
        samples = list(sampled(worker, sender, began))
        sender.join()
        if not sent:
            raise SystemExit("the frame server failed")
        worker.process.until(lambda: worker.has_stored(sent[0]), "the last event")
        worker.check(sent[0])
        seconds = time.monotonic() - began
        scraped = worker.scrape()
    times, sizes = zip(*(sample for sample in samples if sample[0] > options.seconds / 5), strict=True)
    slope = statistics.linear_regression(times, sizes).slope
    print(
        json.dumps(
            {
                "benchmark": "ingest_soak", "seconds": round(seconds), "events": sent[0],
                "events_per_second": round(sent[0] / seconds), "conflated_quotes": scraped.conflated,
                "reads_paused": scraped.pauses, "rss_mib_after_warm_up": round(sizes[0] / 2**20, 1),
                "rss_mib_at_end": round(sizes[-1] / 2**20, 1), "rss_mib_highest": round(max(sizes) / 2**20, 1),
                "rss_slope_mib_per_hour": round(slope * 3600 / 2**20, 2), "cores": os.cpu_count(),
            }
        )
    )  # fmt: skip


def sampled(
    worker: ingest_subjects.Worker, sender: threading.Thread, began: float
) -> "list[tuple[float, float]]":
    """Return samples of (elapsed seconds, resident bytes) until the last frame is sent.

    Args:
        worker: The worker.
        sender: Thread that sends the frames.
        began: Start time of the monotonic clock.
    """
    process = psutil.Process(worker.process.pid)
    samples: list[tuple[float, float]] = []
    logged = 0
    while sender.is_alive():
        samples.append((time.monotonic() - began, float(process.memory_info().rss)))
        if samples[-1][0] // 30 > logged:
            logged = int(samples[-1][0] // 30)
            ingest.log(
                f"{samples[-1][0]:5.0f} s  {samples[-1][1] / 2**20:.1f} MiB  {worker.scrape().acknowledged:,}"
            )
        sender.join(SAMPLE_SECONDS)
    return samples


if __name__ == "__main__":
    main()
