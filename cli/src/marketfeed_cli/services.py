"""Command lines and environments of the project's own processes."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from marketfeed_cli.process import Command, Layer


def embedded_broker(environment: Mapping[str, str], address_file: Path, topics: Mapping[str, int]) -> Command:
    """Return the command of a broker with `topics` (name -> partitions) that writes its address to `address_file`.

    Args:
        environment: Environment of the process.
        address_file: File for the bootstrap address.
        topics: Number of partitions by topic.
    """
    arguments = ["--address-file", str(address_file)]
    for name, partitions in topics.items():
        arguments += ["--topic", f"{name}:{partitions}"]
    return Command(
        "Kafka broker",
        _module("marketfeed_cli.embedded.broker", arguments),
        environment,
        layer=Layer.INFRASTRUCTURE,
    )


def simulator(environment: Mapping[str, str], port_file: Path, arguments: Sequence[str]) -> Command:
    """Return the command of a simulated venue; `arguments` begin with generate or replay.

    Args:
        environment: Environment of the process.
        port_file: File for the port.
        arguments: Arguments, the first of which is generate or replay.
    """
    listen = ["--host", "127.0.0.1", "--port", "0", "--port-file", str(port_file)]
    return Command(
        "simulator",
        _module("marketfeed_simulator", [*listen, *arguments]),
        environment,
        layer=Layer.VENUE,
    )


def worker(environment: Mapping[str, str], port_file: Path) -> Command:
    """Return the command of a worker that writes its metrics port to `port_file`."""
    return Command("worker", _module("marketfeed_workers"), _with_metrics(environment, port_file))


def migration(environment: Mapping[str, str]) -> Command:
    """Return the command of the schema migration."""
    return Command("schema migration", _module("marketfeed_consumers", ["migrate"]), environment)


def consumer(environment: Mapping[str, str], port_file: Path, topics: Sequence[str]) -> Command:
    """Return the command of a consumer of `topics` that writes its metrics port to `port_file`.

    Each consumer has its own group, named by the first topic: members of one group with different subscriptions would
    rebalance for partitions that they are never assigned.

    Args:
        environment: Environment of the process.
        port_file: File for the metrics port.
        topics: Topics to subscribe to.
    """
    group = environment.get("KAFKA_GROUP") or "marketfeed"
    topic = topics[0]
    return Command(
        f"consumer of {topic}",
        _module("marketfeed_consumers", ["run"]),
        {
            **_with_metrics(environment, port_file),
            "CONSUMER_TOPICS": ",".join(topics),
            "KAFKA_GROUP": f"{group}-{topic}",
        },
    )


def _module(name: str, arguments: Sequence[str] = ()) -> list[str]:
    return [sys.executable, "-m", name, *arguments]


def _with_metrics(environment: Mapping[str, str], port_file: Path) -> dict[str, str]:
    return {
        **environment,
        "METRICS_HOST": "127.0.0.1",
        "METRICS_PORT": "0",
        "METRICS_PORT_FILE": str(port_file),
    }
