"""Embedded broker and PostgreSQL."""

import os
import shutil
from pathlib import Path
from typing import Any

import psycopg
import pytest
from confluent_kafka import Consumer, Producer
from confluent_kafka.admin import AdminClient
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from marketfeed_cli import services
from marketfeed_cli.embedded import broker, postgres
from marketfeed_cli.process import Parts

pytestmark = pytest.mark.integration


async def broker_address(parts: Parts, folder: Path, **topics: int) -> str:
    file = folder / "address"
    parts.start(services.embedded_broker(os.environ, file, topics))

    async def written() -> bool:
        return file.exists()

    await parts.until(written, seconds=30, what="the broker's start")
    return file.read_text().strip()


async def test_broker_creates_the_topics_with_their_partitions(parts: Parts, tmp_path: Path) -> None:
    address = await broker_address(parts, tmp_path, trades=3, quotes=1)
    topics = AdminClient({"bootstrap.servers": address}).list_topics(timeout=10).topics
    assert {name: len(topic.partitions) for name, topic in topics.items()} == {"trades": 3, "quotes": 1}


async def test_broker_stores_messages_of_an_idempotent_producer(parts: Parts, tmp_path: Path) -> None:
    address = await broker_address(parts, tmp_path, trades=2)
    producer = Producer({"bootstrap.servers": address, "enable.idempotence": True})
    sent = {f"trade {number}".encode() for number in range(100)}
    for value in sent:
        producer.produce("trades", value, key=value)
    assert producer.flush(10) == 0
    settings: dict[str, Any] = {
        "bootstrap.servers": address,
        "group.id": "g",
        "auto.offset.reset": "earliest",
    }
    consumer = Consumer(settings)
    consumer.subscribe(["trades"])
    received: set[bytes | None] = set()
    while received < sent:
        message = consumer.poll(30)
        assert message is not None
        received.add(message.value())
    consumer.close()
    assert received == sent


@pytest.mark.parametrize("topic", ["trades", "trades:0", ":3", "trades:many"])
def test_broker_rejects_an_invalid_topic(
    topic: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["broker", "--address-file", "unused", "--topic", topic])
    with pytest.raises(SystemExit, match="2"):
        broker.main()
    assert f"{topic!r} is not NAME:PARTITIONS" in capsys.readouterr().err


async def test_postgres_is_version_18_and_requires_the_password(parts: Parts, open_folder: Path) -> None:
    server = await postgres.start(parts, open_folder / "postgres")
    with psycopg.connect(server.dsn) as connection:
        assert connection.info.server_version // 10_000 == postgres.VERSION
    fields = conninfo_to_dict(server.dsn)
    assert fields["host"] == "127.0.0.1"
    without = make_conninfo(server.dsn, password="wrong")
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(without)
    await parts.stop([server.part])
    assert server.part.exit_code == 0


async def test_postgres_password_is_not_on_disk(parts: Parts, open_folder: Path) -> None:
    server = await postgres.start(parts, open_folder / "postgres")
    password = str(conninfo_to_dict(server.dsn)["password"])
    assert server.psql.exists()
    files = [file for file in _files_below(open_folder) if file.is_file() and file.stat().st_size < 100_000]
    assert [file for file in files if password.encode() in file.read_bytes()] == []


@pytest.mark.skipif(os.geteuid() != 0, reason="needs executables that the user nobody cannot access")
@pytest.mark.parametrize("mode", [0o700, 0o755], ids=["private folder", "private executables"])
async def test_postgres_runs_from_private_executables(
    parts: Parts, open_folder: Path, monkeypatch: pytest.MonkeyPatch, mode: int
) -> None:
    private, package = open_folder / "private", postgres.binaries_folder().parents[1]
    for part in (package / "pginstall18", package.with_name(f"{package.name}.libs")):
        shutil.copytree(part, private / part.relative_to(package.parent), symlinks=True)
    private.chmod(mode)
    if mode == 0o755:
        for path in _files_below(private):
            path.chmod(path.stat().st_mode & 0o700)
    installation = private / package.name / "pginstall18"
    monkeypatch.setattr(postgres, "binaries_folder", lambda: installation / "bin")
    server = await postgres.start(parts, open_folder / "postgres")
    with psycopg.connect(server.dsn) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)


def _files_below(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if not path.is_symlink()]
