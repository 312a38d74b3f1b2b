"""Environment of the sink benchmark: Apache Kafka from Maven and PostgreSQL from the wheel, on free loopback ports."""

import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from typing import Protocol

import confluent_kafka
import psutil
import psycopg

from marketfeed_cli.embedded import postgres as embedded
from marketfeed_devtools import maven
from marketfeed_devtools.ports import free_port
from marketfeed_devtools.waiting import until

HERE = Path(__file__).parent
sys.path.append(str(HERE.parent / "tests" / "integration"))

import integration_kafka  # noqa: E402 - in the path appended above


def jars(name: str) -> Path:
    """Return the folder of the jars of maven/NAME.xml; Maven downloads them once."""
    return maven.jars(HERE / "maven" / f"{name}.xml", f"benchmarks/{name}")


@contextmanager
def running(
    command: list[str | Path], log: Path, stop_signal: int = signal.SIGTERM, **options: object
) -> Iterator[int]:
    """Run a process during the ``with`` block; yield its id.

    Args:
        command: Command line.
        log: File for its output.
        stop_signal: Signal to stop it.
        options: Options of `subprocess.Popen`.
    """
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, **options)  # type: ignore[call-overload]
        try:
            yield process.pid
        finally:
            process.send_signal(stop_signal)
            with suppress(subprocess.TimeoutExpired):
                process.wait(30)
            if process.poll() is None:
                process.kill()
                process.wait()


class _Kafka(integration_kafka.ApacheKafka):
    """Broker of the integration tests with more memory and full JIT compilation."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._java = ["java", "-Xms768m", "-Xmx768m", "-cp", f"{integration_kafka.libraries()}/*"]


@contextmanager
def kafka(folder: Path) -> Iterator[str]:
    """Start a broker; yield its address."""
    with _Kafka(folder) as broker:
        yield broker.address


class Url(Protocol):
    """Returns the URL of a database by its name."""

    def __call__(self, database: str = "postgres") -> str: ...


def machine(url: str) -> dict[str, object]:
    """Return hardware and versions of the benchmark's machine; `url` is the URL of the database."""
    with psycopg.connect(url) as connection:
        server = connection.info.parameter_status("server_version") or ""
    kafka = next(integration_kafka.libraries().glob("kafka-clients-*.jar")).stem.removeprefix(
        "kafka-clients-"
    )
    peers = sorted(jars("debezium").glob("debezium-connector-jdbc-*.jar"))
    return {
        "cores": os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30),
        "load_average": [round(load, 2) for load in os.getloadavg()],
        "versions": {
            "python": platform.python_version(),
            "postgresql": server,
            "kafka": kafka,
            "librdkafka": confluent_kafka.libversion()[0],
            **{name: version(name) for name in ("confluent-kafka", "psycopg", "msgspec")},
            "debezium": "".join(jar.stem.removeprefix("debezium-connector-jdbc-") for jar in peers),
        },
    }


@contextmanager
def postgres() -> Iterator[Url]:
    """Start a server with fsync on; yield a function from a database's name to its URL."""
    folder = Path(tempfile.mkdtemp(prefix="marketfeed-bench-pg-"))
    try:
        yield from _postgres(folder)
    finally:
        shutil.rmtree(folder)


def _postgres(folder: Path) -> Iterator[Url]:
    binaries, data, user = embedded.binaries_folder(), folder / "data", None
    if (nobody := embedded.unprivileged_user()) is not None:
        user = nobody[0]
        os.chown(folder, *nobody)
        binaries = embedded.accessible(binaries, folder, nobody)
    environment = {"LC_ALL": "C", "TZ": "UTC", "PATH": os.environ["PATH"]}
    subprocess.run(
        [binaries / "initdb", "-D", data, "-U", "postgres", "--auth=trust", "--encoding=UTF8", "--no-sync"],
        check=True, user=user, env=environment, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    port = free_port()
    options = {
        "listen_addresses": "127.0.0.1", "port": port, "unix_socket_directories": folder,
        "shared_buffers": "1GB", "max_wal_size": "8GB", "checkpoint_timeout": "30min", "wal_compression": "off",
    }  # fmt: skip
    arguments = [argument for name, value in options.items() for argument in ("-c", f"{name}={value}")]
    command: list[str | Path] = [binaries / "postgres", "-D", data, *arguments]
    with running(command, folder / "log", signal.SIGINT, user=user, env=environment):

        def url(database: str = "postgres") -> str:
            return f"postgresql://postgres@127.0.0.1:{port}/{database}"

        def is_up() -> bool:
            with suppress(psycopg.OperationalError), psycopg.connect(url(), connect_timeout=2):
                return True
            return False

        until(is_up, "PostgreSQL")
        yield url
