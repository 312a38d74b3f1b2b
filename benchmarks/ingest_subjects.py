"""Who takes a turn in the ingestion benchmark: each reads the same frames and is measured from outside alike."""

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
WARM_SECONDS = 2
"""What a paced turn sends before it begins to measure: connections to partition leaders, first batches."""

REST_SECONDS = 0.5
ACCOUNT_SECONDS = 30.0
"""How long acknowledgements may be on their way when Kafka has everything."""


@dataclass
class Turn:
    """One turn of one subject. CPU is user and system time of the subject's process from first to last event."""

    events: int
    seconds: float
    cpu_seconds: float
    main_thread_seconds: float
    peak_rss_bytes: int
    notes: dict[str, float] = field(default_factory=dict)

    @property
    def cpu_us(self) -> float:
        """CPU microseconds an event."""
        return self.cpu_seconds / self.events * 1e6

    def __str__(self) -> str:
        return (
            f"{self.cpu_us:7.2f} us CPU an event ({self.main_thread_seconds / self.events * 1e6:.2f} main thread)"
            f"  {self.events / self.seconds:9,.0f} events/s  peak {self.peak_rss_bytes / 2**20:.0f} MiB"
        )


@dataclass
class Bench:
    """What the subjects share."""

    folder: Path
    broker: ingest_stack.Broker
    server: ingest_stack.FrameServer
    tape: ingest_frames.Tape
    turns: int = 0

    def topics(self, *names: str) -> tuple[str, ...]:
        """Names that no turn has used before: a worker goes on where its topics end."""
        self.turns += 1
        return tuple(f"turn{self.turns}.{name}" for name in names)

    def measured(
        self, process: ingest_stack.Process, done: Callable[[], bool], events: int, rate: float = 0
    ) -> Turn:
        """Send the next `events` frames and wait until `done()`."""
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
    """A running `marketfeed-worker` with its defaults. BENCH_WORKER names another way to start it (for profilers)."""

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
        self._rests_since = time.monotonic()
        self.process.until(port_file.exists, "the worker's metrics")
        self._port = int(port_file.read_text())
        self.process.until(lambda: bench.server.connections() == connections, "the worker's connections")

    def scrape(self) -> ingest_stack.Scrape:
        return ingest_stack.scrape(self._port, self.topics)

    def has_stored(self, events: int) -> bool:
        """Whether Kafka holds `events` of this worker, but for quotes that it left out under pressure.

        The worker itself is asked only when Kafka's offsets rest: a scrape has its price.
        """
        stored = self._bench.broker.records(*self.topics)
        if stored != self._stored:
            self._stored, self._rests_since = stored, time.monotonic()
        if stored >= events or time.monotonic() - self._rests_since < REST_SECONDS:
            return stored >= events
        self._rests_since = time.monotonic()
        return stored + self.scrape().conflated >= events

    def check(self, events: int) -> None:
        """A figure of events that were not acknowledged, once and in order, is worth nothing.

        Raises:
            SystemExit: the worker's own account, Kafka's and ours differ.
        """
        deadline = time.monotonic() + ACCOUNT_SECONDS
        while (now := self.scrape()).acknowledged + now.conflated < events and time.monotonic() < deadline:
            time.sleep(0.05)
        stored = self._bench.broker.records(*self.topics)
        if now.acknowledged != stored or stored + now.conflated != events or now.gaps:
            raise SystemExit(
                f"{events} sent, {stored} in Kafka, the worker says {now}\n{self.process.output()}"
            )


def marketfeed(bench: Bench, events: int, rate: float = 0, **settings: str) -> Turn:
    """The real worker process: continuity, metrics, repair, and every acknowledgement accounted for."""
    with ExitStack() as stack:
        worker = Worker(stack, bench, list(ingest_frames.SYMBOLS), 1, **settings)
        warm = int(rate * WARM_SECONDS)
        if warm:
            bench.server.go(warm, rate)
            worker.check(warm)
        before = worker.scrape()
        turn = bench.measured(worker.process, lambda: worker.has_stored(warm + events), events, rate)
        worker.check(warm + events)
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
    """The bare loop: see ingest_floor.py."""
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
    """What receiving alone costs."""
    return floor(bench, events, produce=False)


def cryptofeed(bench: Bench, events: int) -> Turn:
    """cryptofeed with its Kafka backend: see ingest_cryptofeed.py."""
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
    """The folder of a virtual environment that holds cryptofeed; the first call makes it."""

    def make(folder: Path) -> None:
        print(f"installing {' and '.join(CRYPTOFEED)} …", flush=True)
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        subprocess.run(
            [folder / "bin" / "python", "-m", "pip", "install", "--quiet", *CRYPTOFEED], check=True
        )

    # Its scripts name the folder it was made in; its python, which is all that we call, does not.
    return cache.once(f"benchmarks/{CRYPTOFEED[0].replace('==', '-')}", make)
