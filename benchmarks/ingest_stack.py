"""What the ingestion benchmark runs on: the broker, the frame server, and how a process is measured from outside."""

import bisect
import json
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import sink_stack
from confluent_kafka import KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic, OffsetSpec  # type: ignore[attr-defined]
from prometheus_client.parser import text_string_to_metric_families

HERE = Path(__file__).parent
PARTITIONS = 4
RUN_SECONDS = 300.0


class Broker:
    """What is asked of Kafka: topics, and how many records they hold."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._admin = AdminClient({"bootstrap.servers": address, "log_level": 0})

    def create(self, *topics: str) -> None:
        for topic, answer in self._admin.create_topics(
            [NewTopic(topic, PARTITIONS) for topic in topics]
        ).items():
            answer.result()
            sink_stack.until(lambda topic=topic: self._partitions(topic), f"topic {topic}")  # type: ignore[misc]

    def delete(self, *topics: str) -> None:
        for answer in self._admin.delete_topics(list(topics)).values():
            answer.result()

    def records(self, *topics: str) -> int:
        """End offsets, summed: the records that have been acknowledged to somebody."""
        asked = {
            TopicPartition(topic, number): OffsetSpec.latest()  # type: ignore[no-untyped-call]
            for topic in topics
            for number in self._partitions(topic)
        }
        return sum(answer.result().offset for answer in self._admin.list_offsets(asked).values())

    def _partitions(self, topic: str) -> list[int]:
        try:
            return list(self._admin.list_topics(topic, timeout=5).topics[topic].partitions)
        except KafkaException:
            return []


class FrameServer:
    """A running ingest_server.py."""

    def __init__(self, port: int) -> None:
        self.ws_base = f"ws://127.0.0.1:{port}"
        self.rest_base = f"http://127.0.0.1:{port}"

    def connections(self) -> int:
        """How many clients are connected."""
        return int(get(f"{self.rest_base}/control/connections"))

    def go(self, events: int, rate: float = 0) -> float:
        """Send; returns when the last frame has been handed to the kernel. The monotonic time of the beginning."""
        began = time.monotonic()
        post(
            f"{self.rest_base}/control/go?events={events}&rate={rate:g}",
            RUN_SECONDS + (events / rate if rate else 0),
        )
        return began

    def loop(self, seconds: float) -> int:
        """Send the tape over and over; returns how many frames that were."""
        return int(post(f"{self.rest_base}/control/loop?seconds={seconds:g}", RUN_SECONDS + seconds))


@contextmanager
def frame_server(folder: Path, *tapes: Path) -> Iterator[FrameServer]:
    port_file = folder / "frame-server.port"
    port_file.unlink(missing_ok=True)
    command: list[str | Path] = [sys.executable, HERE / "ingest_server.py", "--port-file", port_file, *tapes]
    with sink_stack.running(command, folder / "frame-server.log"):
        sink_stack.until(port_file.exists, "the frame server", 30)
        yield FrameServer(json.loads(port_file.read_text()))


@dataclass
class Usage:
    """What a process has used up to now."""

    cpu_seconds: float
    main_thread_seconds: float
    peak_rss_bytes: int


def usage(pid: int) -> Usage:
    process = psutil.Process(pid)
    times = process.cpu_times()
    main = next(thread for thread in process.threads() if thread.id == pid)
    status = Path(f"/proc/{pid}/status")
    peak = process.memory_info().rss
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        peak = int(line.split()[1]) * 1024
    return Usage(times.user + times.system, main.user_time + main.system_time, peak)


def get(url: str) -> str:
    with urllib.request.urlopen(url, timeout=10) as answer:  # noqa: S310 - our own processes on loopback
        return str(answer.read().decode())


def post(url: str, timeout_seconds: float) -> str:
    request = urllib.request.Request(url, method="POST")  # noqa: S310 - our own server on loopback
    with urllib.request.urlopen(request, timeout=timeout_seconds) as answer:  # noqa: S310
        return str(answer.read().decode())


@dataclass
class Scrape:
    """A worker's metrics, as far as they are of use here; buckets are upper bound in seconds -> cumulative count."""

    acknowledged: int
    conflated: int
    gaps: int
    pauses: int
    buckets: dict[float, int]


def scrape(port: int, topics: tuple[str, ...]) -> Scrape:
    values: dict[str, float] = {}
    buckets: dict[float, int] = {}
    for family in text_string_to_metric_families(get(f"http://127.0.0.1:{port}/metrics")):
        for sample in family.samples:
            if sample.labels.get("topic", topics[0]) not in topics:
                continue
            if sample.name == "marketfeed_socket_to_ack_seconds_bucket":
                bound = float(sample.labels["le"])
                buckets[bound] = buckets.get(bound, 0) + int(sample.value)
            else:
                values[sample.name] = values.get(sample.name, 0) + sample.value
    return Scrape(
        int(values["kafka_publish_success_total"]),
        int(values["marketfeed_quotes_conflated_total"]),
        int(values["marketfeed_trade_gaps_detected_total"]),
        int(values["marketfeed_reads_paused_total"]),
        buckets,
    )


def quantile(buckets: dict[float, int], share: float) -> float:
    """The latency in seconds below which `share` of the events are; linear within a bucket."""
    bounds = sorted(buckets)
    counts = [buckets[bound] for bound in bounds]
    wanted = share * counts[-1]
    place = bisect.bisect_left(counts, wanted)
    low, below = (bounds[place - 1], counts[place - 1]) if place else (0.0, 0)
    high = bounds[place] if bounds[place] != float("inf") else low
    return low + (high - low) * (wanted - below) / max(1, counts[place] - below)


class Process:
    """A process under measurement; its output goes to a file, its stdin is ours."""

    def __init__(
        self, stack: ExitStack, log: Path, command: list[str | Path], environment: dict[str, str]
    ) -> None:
        self._log = log
        output = stack.enter_context(log.open("wb"))
        self._popen = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=output, stderr=output, env=environment, cwd=log.parent
        )
        stack.callback(self._stop)
        self.pid = self._popen.pid

    def until(self, condition: Callable[[], bool], what: str) -> None:
        """Wait for `condition()`, and no longer than the process lives."""

        def met() -> bool:
            if self._popen.poll() is not None:
                raise SystemExit(f"ended while we waited for {what}:\n{self.output()}")
            return condition()

        sink_stack.until(met, what, RUN_SECONDS)

    def output(self) -> str:
        return self._log.read_text(errors="replace")

    def _stop(self) -> None:
        if self._popen.stdin is not None:
            self._popen.stdin.close()
        self._popen.terminate()
        try:
            self._popen.wait(30)
        except subprocess.TimeoutExpired:
            self._popen.kill()
            self._popen.wait()
