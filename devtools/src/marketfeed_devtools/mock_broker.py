"""Kafka broker of tests: librdkafka's mock cluster, which implements the protocol, in a process with fault injection.

``python -m marketfeed_devtools.mock_broker`` is that process. It prints its bootstrap address, executes the command of
each line of stdin, responds with "ok", and ends at the end of stdin: also when the test run is killed.
"""

import ctypes
import importlib.metadata
import json
import signal
import subprocess
import sys
import time
import uuid
from collections import defaultdict
from types import TracebackType
from typing import Any, Self, TextIO, cast

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

PRODUCE = 0
"""API key of the Produce request in Kafka's protocol."""


class Broker:
    """A running broker in a ``with`` block.

    Attributes:
        address: the bootstrap address.
    """

    address: str

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "marketfeed_devtools.mock_broker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._stdin = cast("TextIO", self._process.stdin)
        self._stdout = cast("TextIO", self._process.stdout)
        self.address = self._line()
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._stdin.close()
        self._process.send_signal(signal.SIGCONT)  # a frozen process does not read the end of stdin
        self._process.wait(10)
        self._stdout.close()

    def down(self) -> None:
        """Close every connection and accept none."""
        self._do("down")

    def up(self) -> None:
        """Listen again; the stored records are kept."""
        self._do("up")

    def freeze(self) -> None:
        """Stop the process: connections stay open without responses."""
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Resume the process."""
        self._process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """End the process: its port refuses connections, its records are lost."""
        self._process.kill()
        self._process.wait(10)

    def delay_answers(self, milliseconds: int) -> None:
        """Delay every response."""
        self._do("delay", milliseconds)

    def refuse_produce(self, *codes: int) -> None:
        """Return these error codes of the Kafka protocol to the next Produce requests; 0 accepts one."""
        self._do("refuse", *codes)

    def leaderless(self, topic: str, partitions: int = 4) -> None:
        """Remove the leaders of a topic's partitions; see `led`."""
        self._do("leader", topic, partitions, -1)

    def led(self, topic: str, partitions: int = 4) -> None:
        """Restore the leaders."""
        self._do("leader", topic, partitions, 1)

    def new_topic(self, name: str, partitions: int = 4) -> str:
        """Create a topic and return its unique name, so that tests can share a broker."""
        unique = f"{name}.{uuid.uuid4().hex[:8]}"
        self._do("topic", unique, partitions)
        return unique

    def read(self, topic: str) -> list[tuple[bytes, bytes]]:
        """Return (key, value) of every record in `topic`, ordered within a key."""
        consumer = Consumer(
            {
                "bootstrap.servers": self.address,
                "group.id": "reader",
                "enable.auto.commit": False,
                "enable.partition.eof": True,
                "fetch.wait.max.ms": 10,
            }
        )
        try:
            partitions = consumer.list_topics(topic, timeout=10).topics[topic].partitions
            consumer.assign([TopicPartition(topic, number, 0) for number in partitions])
            return _until_the_end(consumer, len(partitions))
        finally:
            consumer.close()

    def _do(self, *command: object) -> None:
        self._stdin.write(json.dumps(command) + "\n")
        self._stdin.flush()
        self._line()  # "ok"; without it the process has ended

    def _line(self) -> str:
        line = self._stdout.readline()
        if not line:
            raise AssertionError(f"the broker ended with exit code {self._process.wait(5)}")
        return line.strip()


def _until_the_end(consumer: Consumer, partitions: int) -> list[tuple[bytes, bytes]]:
    stored: dict[int, list[tuple[bytes, bytes]]] = defaultdict(list)
    ended: set[int] = set()
    deadline = time.monotonic() + 20
    while len(ended) < partitions:
        if time.monotonic() > deadline:
            raise AssertionError(f"only {len(ended)} of {partitions} partitions were read")
        for message in consumer.consume(1000, timeout=0.2):
            number, error = cast("int", message.partition()), message.error()
            if error is None:
                stored[number].append((message.key() or b"", message.value() or b""))
            elif error.code() == KafkaError._PARTITION_EOF:
                ended.add(number)
            else:
                raise KafkaException(error)
    return [record for number in sorted(stored) for record in stored[number]]


def _serve() -> None:
    library = _librdkafka()
    conf = library.rd_kafka_conf_new()
    reason = ctypes.create_string_buffer(512)
    for name, value in ((b"test.mock.num.brokers", b"1"), (b"log_level", b"0")):
        if library.rd_kafka_conf_set(conf, name, value, reason, len(reason)) != 0:
            raise AssertionError(reason.value)
    handle = library.rd_kafka_new(0, conf, reason, len(reason))
    if not handle:
        raise AssertionError(reason.value)
    cluster = library.rd_kafka_handle_mock_cluster(handle)
    _answer(library.rd_kafka_mock_cluster_bootstraps(cluster).decode())
    for line in sys.stdin:
        if _do(library, cluster, *json.loads(line)) != 0:
            raise AssertionError(f"the mock cluster rejected {line}")
        _answer("ok")


def _do(library: ctypes.CDLL, cluster: int, command: str, *arguments: Any) -> int:
    broker_id = 1
    match command, *arguments:
        case ["topic", name, partitions]:
            result = library.rd_kafka_mock_topic_create(cluster, name.encode(), partitions, 1)
        case ["leader", topic, partitions, leader]:
            set_leader = library.rd_kafka_mock_partition_set_leader
            result = max(set_leader(cluster, topic.encode(), each, leader) for each in range(partitions))
        case ["down"]:
            result = library.rd_kafka_mock_broker_set_down(cluster, broker_id)
        case ["up"]:
            result = library.rd_kafka_mock_broker_set_up(cluster, broker_id)
        case ["delay", milliseconds]:
            result = library.rd_kafka_mock_broker_set_rtt(cluster, broker_id, milliseconds)
        case ["refuse", *codes]:
            errors = (ctypes.c_int * len(codes))(*codes)
            library.rd_kafka_mock_push_request_errors_array(cluster, PRODUCE, len(codes), errors)
            result = 0
        case _:
            raise AssertionError(f"no such command: {command} {arguments}")
    return int(result)


def _answer(text: str) -> None:
    print(text, flush=True)


def _librdkafka() -> ctypes.CDLL:
    """The library inside the confluent_kafka wheel."""
    files = importlib.metadata.files("confluent-kafka") or []
    library = ctypes.CDLL(next(str(file.locate()) for file in files if file.name.startswith("librdkafka")))
    pointer, text, number = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int
    library.rd_kafka_conf_new.restype = pointer
    library.rd_kafka_conf_set.argtypes = [pointer, text, text, text, ctypes.c_size_t]
    library.rd_kafka_new.restype = pointer
    library.rd_kafka_new.argtypes = [number, pointer, text, ctypes.c_size_t]
    library.rd_kafka_handle_mock_cluster.restype = pointer
    library.rd_kafka_handle_mock_cluster.argtypes = [pointer]
    library.rd_kafka_mock_cluster_bootstraps.restype = text
    library.rd_kafka_mock_cluster_bootstraps.argtypes = [pointer]
    library.rd_kafka_mock_topic_create.argtypes = [pointer, text, number, number]
    library.rd_kafka_mock_partition_set_leader.argtypes = [pointer, text, ctypes.c_int32, ctypes.c_int32]
    library.rd_kafka_mock_broker_set_down.argtypes = [pointer, ctypes.c_int32]
    library.rd_kafka_mock_broker_set_up.argtypes = [pointer, ctypes.c_int32]
    library.rd_kafka_mock_broker_set_rtt.argtypes = [pointer, ctypes.c_int32, number]
    library.rd_kafka_mock_push_request_errors_array.argtypes = [
        pointer,
        ctypes.c_int16,
        ctypes.c_size_t,
        ctypes.POINTER(number),
    ]
    return library


if __name__ == "__main__":
    _serve()
