"""A Kafka broker in one small process: librdkafka's own mock cluster, which speaks the real protocol.

``python -m marketfeed_cli.embedded.broker --address-file FILE --topic NAME:PARTITIONS …`` writes the bootstrap address
into FILE once it listens, and runs until SIGTERM. It holds everything in memory, and of each partition only the newest
5 MB as sent, so compressed (max_size in librdkafka's src/rdkafka_mock.c): enough for a demo whose consumers keep up,
and nothing more. For anything else give a real broker's address in KAFKA_BROKER.
"""

import argparse
import ctypes
import importlib.metadata
import signal
from pathlib import Path
from typing import Final

from marketfeed_chassis.errors import StartupError

_PRODUCER: Final = 0  # rd_kafka_type_t RD_KAFKA_PRODUCER


def serve(topics: dict[str, int], address_file: Path) -> None:
    """Run a broker with `topics` (name -> partitions) until SIGTERM or SIGINT.

    Topics that are not named here come into being with four partitions when a client asks for them.

    Raises:
        StartupError: this installation of librdkafka has no mock cluster.
    """
    stop = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, stop)
    library = _librdkafka()
    handle = _new_handle(library)
    cluster = library.rd_kafka_handle_mock_cluster(handle)
    library.rd_kafka_mock_group_initial_rebalance_delay_ms(cluster, 0)  # nobody else is about to join
    for name, partitions in topics.items():
        # Nothing in the protocol creates topics on a mock cluster; only this call chooses the partition count.
        if library.rd_kafka_mock_topic_create(cluster, name.encode(), partitions, 1) != 0:
            raise StartupError(f"the embedded broker refused the topic {name!r} with {partitions} partitions")
    bootstrap: bytes = library.rd_kafka_mock_cluster_bootstraps(cluster)
    temporary = address_file.with_suffix(".new")
    temporary.write_text(bootstrap.decode() + "\n")
    temporary.replace(address_file)
    signal.sigwait(stop)


def _librdkafka() -> ctypes.CDLL:
    """The librdkafka that confluent_kafka brings, which carries the mock cluster."""
    import confluent_kafka  # noqa: F401 - loads the library's own dependencies

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
    """A client whose only purpose is the mock cluster of one broker that lives in it."""
    conf = library.rd_kafka_conf_new()
    reason = ctypes.create_string_buffer(512)
    for name, value in {"test.mock.num.brokers": "1", "log_level": "3"}.items():
        if library.rd_kafka_conf_set(conf, name.encode(), value.encode(), reason, len(reason)) != 0:
            raise StartupError(f"librdkafka refused {name}: {reason.value.decode()}")
    handle: int | None = library.rd_kafka_new(_PRODUCER, conf, reason, len(reason))
    if not handle:
        raise StartupError(f"librdkafka made no mock cluster: {reason.value.decode()}")
    return handle


def _topic(argument: str) -> tuple[str, int]:
    name, _, partitions = argument.rpartition(":")
    if not name or not partitions.isdigit() or int(partitions) < 1:
        raise argparse.ArgumentTypeError(f"{argument!r} is not NAME:PARTITIONS")
    return name, int(partitions)


def main() -> None:
    """Entry point of the process."""
    parser = argparse.ArgumentParser(prog="python -m marketfeed_cli.embedded.broker", description=__doc__)
    parser.add_argument("--address-file", type=Path, required=True, help="file that receives host:port")
    parser.add_argument("--topic", type=_topic, action="append", default=[], help="NAME:PARTITIONS, repeated")
    arguments = parser.parse_args()
    serve(dict(arguments.topic), arguments.address_file)


if __name__ == "__main__":
    main()
