"""Subjects of the ingestion benchmark, which read the same frames and are measured in the same way from outside."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import ingest_frames
import ingest_stack

from marketfeed_devtools import cache

CRYPTOFEED = ("cryptofeed==2.4.1", "aiokafka==0.14.0")
WARM_UP_SECONDS = 2
"""Warm-up of a turn at a constant rate: connections to partition leaders, first batches."""

IDLE_SECONDS = 0.5
ACKNOWLEDGE_SECONDS = 30.0
"""Timeout of outstanding acknowledgements after Kafka has all messages."""


@dataclass
class Turn:
    """A turn of a subject. CPU is user and system time of the subject's process from first to last event."""

    events: int
    seconds: float
    cpu_seconds: float
    main_thread_seconds: float
    peak_rss_bytes: int
    notes: dict[str, float] = field(default_factory=dict)

    @property
    def cpu_us(self) -> float:
        """CPU microseconds per event."""
        return self.cpu_seconds / self.events * 1e6

    def __str__(self) -> str:
        return (
            f"{self.cpu_us:7.2f} us CPU per event ({self.main_thread_seconds / self.events * 1e6:.2f} main thread)"
            f"  {self.events / self.seconds:9,.0f} events/s  peak {self.peak_rss_bytes / 2**20:.0f} MiB"
        )


@dataclass
class Bench:
    """Environment of the subjects."""

    folder: Path
    broker: ingest_stack.Broker
    server: ingest_stack.FrameServer
    tape: ingest_frames.Tape
    turns: int = 0

    def topics(self, *names: str) -> tuple[str, ...]:
        """Return unused topic names, because a worker continues at the end of its topics."""
        self.turns += 1
        return tuple(f"turn{self.turns}.{name}" for name in names)

    def measured(
        self, process: ingest_stack.Process, done: Callable[[], bool], events: int, rate: float = 0
    ) -> Turn:
        """Send the next `events` frames, wait until `done()`, and return the measurement.

        Args:
            process: Process to measure.
            done: Condition of the end.
            events: Number of frames.
            rate: Frames per second; 0 for full speed.
        """
        before = ingest_stack.usage(process.pid)
        began = self.server.go(events, rate)
        process.until(done, "the last event")
        seconds = time.monotonic() - began
        after = ingest_stack.usage(process.pid)
        return Turn(
            events,
            seconds,
            after.cpu_seconds - before.cpu_seconds,
            after.main_thread_seconds - before.main_thread_seconds,
            after.peak_rss_bytes,
        )


class Worker:
    """A running `marketfeed-worker` with defaults. BENCH_WORKER replaces its command line (for profilers)."""

    def __init__(
        self, stack: ExitStack, bench: Bench, symbols: list[str], connections: int, **settings: str
    ) -> None:
        self._bench = bench
        self.all_topics = bench.topics("trades", "quotes", "progress", "gaps")
        self.topics = self.all_topics[:2]
        names = ("MARKET_TRADES_TOPIC", "MARKET_BOOK_TOPIC", "MARKET_PROGRESS_TOPIC", "MARKET_GAPS_TOPIC")
        port_file = bench.folder / f"{self.topics[0]}.port"
        environment = {
            **os.environ, "BINANCE_WS_BASE": bench.server.ws_base, "BINANCE_REST_BASE": bench.server.rest_base,
            "BINANCE_SYMBOLS": ",".join(symbols), "KAFKA_BROKER": bench.broker.address,
            **dict(zip(names, self.all_topics, strict=True)), "METRICS_HOST": "127.0.0.1", "METRICS_PORT": "0",
            "METRICS_PORT_FILE": str(port_file), "LOG_LEVEL": "WARNING", **settings,
        }  # fmt: skip
        command: list[str | Path] = [
            sys.executable,
            *os.environ.get("BENCH_WORKER", "-m marketfeed_workers").split(),
        ]
        self.process = ingest_stack.Process(
            stack, bench.folder / f"{self.topics[0]}.log", command, environment
        )
        self._stored = 0
        self._idle_since = time.monotonic()
        self.process.until(port_file.exists, "the worker's metrics")
        self._port = int(port_file.read_text())
        self.process.until(lambda: bench.server.connections() == connections, "the worker's connections")

    def scrape(self) -> ingest_stack.Scrape:
        return ingest_stack.scrape(self._port, self.topics)

    def has_stored(self, events: int) -> bool:
        """Return whether Kafka has `events` messages of this worker, including quotes conflated under backpressure.

        The worker is scraped only while Kafka's end offsets do not change, because a scrape costs CPU time.
        """
        stored = self._bench.broker.records(*self.topics)
        if stored != self._stored:
            self._stored, self._idle_since = stored, time.monotonic()
        if stored >= events or time.monotonic() - self._idle_since < IDLE_SECONDS:
            return stored >= events
        self._idle_since = time.monotonic()
        return stored + self.scrape().conflated >= events

    def check(self, events: int) -> None:
        """Verify that all events were acknowledged exactly once and in order.

        Raises:
            SystemExit: The counts of the worker, of Kafka and of the benchmark differ.
        """
        deadline = time.monotonic() + ACKNOWLEDGE_SECONDS
        while (now := self.scrape()).acknowledged + now.conflated < events and time.monotonic() < deadline:
            time.sleep(0.05)
        stored = self._bench.broker.records(*self.topics)
        if now.acknowledged != stored or stored + now.conflated != events or now.gaps:
            raise SystemExit(
                f"{events} sent, {stored} in Kafka, metrics of the worker: {now}\n{self.process.output()}"
            )


def marketfeed(bench: Bench, events: int, rate: float = 0, **settings: str) -> Turn:
    """Measure the worker process with continuity, metrics, backfill and verified acknowledgements.

    Args:
        bench: The environment.
        events: Number of frames.
        rate: Frames per second; 0 for full speed.
        settings: Further settings of the worker.
    """
    with ExitStack() as stack:
        worker = Worker(stack, bench, list(ingest_frames.SYMBOLS), 1, **settings)
        warm_up = int(rate * WARM_UP_SECONDS)
        if warm_up:
            bench.server.go(warm_up, rate)
            worker.check(warm_up)
        before = worker.scrape()
        turn = bench.measured(worker.process, lambda: worker.has_stored(warm_up + events), events, rate)
        worker.check(warm_up + events)
        after = worker.scrape()
        buckets = {bound: count - before.buckets[bound] for bound, count in after.buckets.items()}
        turn.notes = {
            "p50_ms": ingest_stack.quantile(buckets, 0.5) * 1e3,
            "p99_ms": ingest_stack.quantile(buckets, 0.99) * 1e3,
            "conflated": after.conflated,
            "pauses": after.pauses,
        }
        topics = worker.all_topics
    bench.broker.delete(*topics)
    return turn


def floor(bench: Bench, events: int, *, produce: bool = True) -> Turn:
    """Measure the minimal loop; see ingest_floor.py.

    Args:
        bench: The environment.
        events: Number of frames.
        produce: Whether to produce to Kafka.
    """
    topics = bench.topics("trades", "quotes") if produce else ()
    streams = "/".join(sorted(bench.tape.streams))
    if produce:
        bench.broker.create(*topics)
    command: list[str | Path] = [
        sys.executable, ingest_stack.HERE / "ingest_floor.py", f"{bench.server.ws_base}/stream?streams={streams}",
        str(events), *((bench.broker.address, *topics) if produce else ()),
    ]  # fmt: skip
    with ExitStack() as stack:
        process = ingest_stack.Process(stack, bench.folder / "floor.log", command, dict(os.environ))
        process.until(lambda: bench.server.connections() == 1, "a connection")
        turn = bench.measured(process, lambda: "done" in process.output(), events)
        if produce and bench.broker.records(*topics) != events:
            raise SystemExit(f"{events} sent, {bench.broker.records(*topics)} in Kafka")
    if produce:
        bench.broker.delete(*topics)
    return turn


def receive_only(bench: Bench, events: int) -> Turn:
    """Measure receiving only."""
    return floor(bench, events, produce=False)


def cryptofeed(bench: Bench, events: int) -> Turn:
    """Measure cryptofeed with its Kafka backend; see ingest_cryptofeed.py."""
    topics = tuple(
        f"{kind}-BINANCE-{pair}" for kind in ("trades", "ticker") for pair in ("BTC-USDT", "ETH-USDT")
    )
    bench.broker.create(*topics)
    command: list[str | Path] = [
        cryptofeed_environment() / "bin" / "python", ingest_stack.HERE / "ingest_cryptofeed.py",
        bench.server.ws_base, bench.broker.address, ",".join(ingest_frames.SYMBOLS),
    ]  # fmt: skip
    with ExitStack() as stack:
        process = ingest_stack.Process(
            stack, bench.folder / "cryptofeed-process.log", command, dict(os.environ)
        )
        process.until(lambda: bench.server.connections() == 1, "a connection")
        turn = bench.measured(process, lambda: bench.broker.records(*topics) >= events, events)
    bench.broker.delete(*topics)
    return turn


def cryptofeed_environment() -> Path:
    """Return the folder of a virtual environment with cryptofeed; the first call creates it."""

    def make(folder: Path) -> None:
        print(f"installing {' and '.join(CRYPTOFEED)} …", flush=True)
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        subprocess.run(
            [folder / "bin" / "python", "-m", "pip", "install", "--quiet", *CRYPTOFEED], check=True
        )

    # Scripts in it contain the path of its creation; only its python is used, which does not.
    return cache.once(f"benchmarks/{CRYPTOFEED[0].replace('==', '-')}", make)
