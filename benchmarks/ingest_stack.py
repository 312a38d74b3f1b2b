"""Environment of the ingestion benchmark: broker, frame server, and measurement of a process from outside."""

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
    """Kafka administration: topics and their number of records."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._admin = AdminClient({"bootstrap.servers": address, "log_level": 0})

    def create(self, *topics: str) -> None:
        for topic, future in self._admin.create_topics(
            [NewTopic(topic, PARTITIONS) for topic in topics]
        ).items():
            future.result()
            sink_stack.until(lambda topic=topic: self._partitions(topic), f"topic {topic}")  # type: ignore[misc]

    def delete(self, *topics: str) -> None:
        for future in self._admin.delete_topics(list(topics)).values():
            future.result()

    def records(self, *topics: str) -> int:
        """Return the sum of the log end offsets."""
        request = {
            TopicPartition(topic, number): OffsetSpec.latest()  # type: ignore[no-untyped-call]
            for topic in topics
            for number in self._partitions(topic)
        }
        return sum(future.result().offset for future in self._admin.list_offsets(request).values())

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
        """Return the number of open connections."""
        return int(get(f"{self.rest_base}/control/connections"))

    def go(self, events: int, rate: float = 0) -> float:
        """Send frames and wait until the last is passed to the kernel; return the monotonic start time."""
        began = time.monotonic()
        post(
            f"{self.rest_base}/control/go?events={events}&rate={rate:g}",
            RUN_SECONDS + (events / rate if rate else 0),
        )
        return began

    def loop(self, seconds: float) -> int:
        """Send the tape repeatedly; return the number of frames."""
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
    """Resources that a process has used so far."""

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
    with urllib.request.urlopen(url, timeout=10) as response:  # noqa: S310 - local process
        return str(response.read().decode())


def post(url: str, timeout_seconds: float) -> str:
    request = urllib.request.Request(url, method="POST")  # noqa: S310 - local server
    with urllib.request.urlopen(request, timeout=timeout_seconds) as response:  # noqa: S310
        return str(response.read().decode())


@dataclass
class Scrape:
    """Metrics of a worker; `buckets` is upper bound in seconds -> cumulative count."""

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


def quantile(buckets: dict[float, int], q: float) -> float:
    """Return the `q` quantile of the latency in seconds, with linear interpolation within a bucket."""
    bounds = sorted(buckets)
    counts = [buckets[bound] for bound in bounds]
    rank = q * counts[-1]
    index = bisect.bisect_left(counts, rank)
    low, below = (bounds[index - 1], counts[index - 1]) if index else (0.0, 0)
    high = bounds[index] if bounds[index] != float("inf") else low
    return low + (high - low) * (rank - below) / max(1, counts[index] - below)


class Process:
    """A measured process, with output to a file and a pipe as stdin."""

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
        """Wait for `condition()`; fail if the process exits."""

        def met() -> bool:
            if self._popen.poll() is not None:
                raise SystemExit(f"the process exited before {what}:\n{self.output()}")
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
