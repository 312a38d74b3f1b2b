"""Embedded Kafka broker in a process: librdkafka's mock cluster, which implements the protocol.

``python -m marketfeed_cli.embedded.broker --address-file FILE --topic NAME:PARTITIONS …`` writes the bootstrap address
to FILE when it listens, and runs until SIGTERM. It keeps messages in memory, and only the newest 5 MB of each partition
in their compressed size (max_size in librdkafka's src/rdkafka_mock.c). This is sufficient for a demo without consumer
lag. For other uses set KAFKA_BROKER to a real broker.
"""

import argparse
import ctypes
import importlib.metadata
import signal
from pathlib import Path
from typing import Final

from marketfeed_service.errors import StartupError

_PRODUCER: Final = 0  # rd_kafka_type_t RD_KAFKA_PRODUCER


def serve(topics: dict[str, int], address_file: Path) -> None:
    """Run a broker with `topics` (name -> partitions) until SIGTERM or SIGINT.

    Other topics are created with four partitions on a client's first request.

    Raises:
        StartupError: The installed librdkafka has no mock cluster.
    """
    stop = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, stop)
    library = _librdkafka()
    handle = _new_handle(library)
    cluster = library.rd_kafka_handle_mock_cluster(handle)
    library.rd_kafka_mock_group_initial_rebalance_delay_ms(cluster, 0)  # there are no other members
    for name, partitions in topics.items():
        # The mock cluster does not implement CreateTopics; only this call sets the number of partitions.
        if library.rd_kafka_mock_topic_create(cluster, name.encode(), partitions, 1) != 0:
            raise StartupError(
                f"the embedded broker rejected the topic {name!r} with {partitions} partitions"
            )
    bootstrap: bytes = library.rd_kafka_mock_cluster_bootstraps(cluster)
    temporary = address_file.with_suffix(".new")
    temporary.write_text(bootstrap.decode() + "\n")
    temporary.replace(address_file)
    signal.sigwait(stop)


def _librdkafka() -> ctypes.CDLL:
    """Load the librdkafka of the package confluent_kafka, which contains the mock cluster."""
    import confluent_kafka  # noqa: F401 - loads the library's dependencies

    files = importlib.metadata.files("confluent-kafka") or []
    found = next((str(file.locate()) for file in files if file.name.startswith("librdkafka")), None)
    library = ctypes.CDLL(found or "librdkafka.so.1")
    pointer, text = ctypes.c_void_p, ctypes.c_char_p
    library.rd_kafka_conf_new.restype = pointer
    library.rd_kafka_conf_set.argtypes = [pointer, text, text, text, ctypes.c_size_t]
    library.rd_kafka_new.restype = pointer
    library.rd_kafka_new.argtypes = [ctypes.c_int, pointer, text, ctypes.c_size_t]
    library.rd_kafka_handle_mock_cluster.restype = pointer
    library.rd_kafka_handle_mock_cluster.argtypes = [pointer]
    library.rd_kafka_mock_topic_create.argtypes = [pointer, text, ctypes.c_int, ctypes.c_int]
    library.rd_kafka_mock_group_initial_rebalance_delay_ms.argtypes = [pointer, ctypes.c_int32]
    library.rd_kafka_mock_group_initial_rebalance_delay_ms.restype = None
    library.rd_kafka_mock_cluster_bootstraps.restype = text
    library.rd_kafka_mock_cluster_bootstraps.argtypes = [pointer]
    return library


def _new_handle(library: ctypes.CDLL) -> int:
    """Create a client that contains a mock cluster of one broker."""
    conf = library.rd_kafka_conf_new()
    reason = ctypes.create_string_buffer(512)
    for name, value in {"test.mock.num.brokers": "1", "log_level": "3"}.items():
        if library.rd_kafka_conf_set(conf, name.encode(), value.encode(), reason, len(reason)) != 0:
            raise StartupError(f"librdkafka rejected {name}: {reason.value.decode()}")
    handle: int | None = library.rd_kafka_new(_PRODUCER, conf, reason, len(reason))
    if not handle:
        raise StartupError(f"librdkafka did not create a mock cluster: {reason.value.decode()}")
    return handle


def _topic(argument: str) -> tuple[str, int]:
    name, _, partitions = argument.rpartition(":")
    if not name or not partitions.isdigit() or int(partitions) < 1:
        raise argparse.ArgumentTypeError(f"{argument!r} is not NAME:PARTITIONS")
    return name, int(partitions)


def main() -> None:
    """Run the broker process."""
    parser = argparse.ArgumentParser(prog="python -m marketfeed_cli.embedded.broker", description=__doc__)
    parser.add_argument("--address-file", type=Path, required=True, help="file to write host:port to")
    parser.add_argument(
        "--topic", type=_topic, action="append", default=[], help="NAME:PARTITIONS, repeatable"
    )
    arguments = parser.parse_args()
    serve(dict(arguments.topic), arguments.address_file)


if __name__ == "__main__":
    main()
