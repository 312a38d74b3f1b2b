"""The command line and the environment of each part that is a program of ours."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from marketfeed_cli.process import Command, Layer


def embedded_broker(environment: Mapping[str, str], address_file: Path, topics: Mapping[str, int]) -> Command:
    """A broker that has `topics` (name -> partitions) and writes its address into `address_file`."""
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
    """The venue; `arguments` begin with generate or replay."""
    listen = ["--host", "127.0.0.1", "--port", "0", "--port-file", str(port_file)]
    return Command(
        "simulator",
        _module("marketfeed_simulator", [*listen, *arguments]),
        environment,
        layer=Layer.VENUE,
    )


def worker(environment: Mapping[str, str], port_file: Path) -> Command:
    """A worker that tells its metrics port in `port_file`."""
    return Command("worker", _module("marketfeed_workers"), _observed(environment, port_file))


def migration(environment: Mapping[str, str]) -> Command:
    """Brings the database's tables up to date."""
    return Command("schema migration", _module("marketfeed_consumers", ["migrate"]), environment)


def consumer(environment: Mapping[str, str], port_file: Path, topics: Sequence[str]) -> Command:
    """A consumer of `topics`, named for the first of them, that tells its metrics port in `port_file`.

    Each consumer is a group of its own: members of one group that read different topics would make each other stop
    and rebalance for partitions that they never get.
    """
    group = environment.get("KAFKA_GROUP") or "marketfeed"
    topic = topics[0]
    return Command(
        f"consumer of {topic}",
        _module("marketfeed_consumers", ["run"]),
        {
            **_observed(environment, port_file),
            "CONSUMER_TOPICS": ",".join(topics),
            "KAFKA_GROUP": f"{group}-{topic}",
        },
    )


def _module(name: str, arguments: Sequence[str] = ()) -> list[str]:
    return [sys.executable, "-m", name, *arguments]


def _observed(environment: Mapping[str, str], port_file: Path) -> dict[str, str]:
    return {
        **environment,
        "METRICS_HOST": "127.0.0.1",
        "METRICS_PORT": "0",
        "METRICS_PORT_FILE": str(port_file),
    }
