"""A partition whose log lost its end (power loss, unclean leader election), below what is stored of it.

The records after the cut were lost, and others come in their place, up to the stored offset and beyond. Reading on from
there would skip them in silence; so the consumer is refused, and stays refused whatever the log does, until
reset-offsets.
"""

import signal
import struct
from pathlib import Path
from uuid import uuid4

import pytest
from confluent_kafka import Producer
from integration_consumers import PARTITIONS, Consumer, Rig, trade
from integration_kafka import ApacheKafka, require_kafka

from marketfeed_cli.process import Parts
from marketfeed_devtools.waiting import until_async
from marketfeed_wire import encode, key_for

pytestmark = [pytest.mark.integration, pytest.mark.kafka]

STORED = 'SELECT next_offset, refusal FROM consumer_offsets WHERE "partition" = 1'


def send(rig: Rig, trade_ids: range, partition: int) -> None:
    """Publish to one partition, in batches that a log can be cut between."""
    producer = Producer({"bootstrap.servers": rig.kafka.address, "linger.ms": 0, "log_level": 0})
    for number, trade_id in enumerate(trade_ids):
        symbol = f"SYM{partition}"
        producer.produce(rig.topic, encode(trade(trade_id, symbol)), key_for(symbol), partition)
        if number % 10 == 9:
            assert producer.flush(30) == 0
    assert producer.flush(30) == 0


def cut_log(kafka: ApacheKafka, folder: Path, topic: str, partition: int, offset: int) -> None:
    """Kill the broker, take the end of a partition's log from `offset` on, and start it again."""
    kafka.stop(signal.SIGKILL)
    (log,) = folder.rglob(f"{topic}-{partition}/*.log")
    data, end = log.read_bytes(), 0
    while end < len(data):
        base, length = struct.unpack(">qi", data[end : end + 12])
        if base >= offset:
            break
        end += 12 + length
    with log.open("r+b") as file:
        file.truncate(end)
    for mark in folder.rglob(".kafka_cleanshutdown"):
        mark.unlink()
    kafka.start()


async def refused(consumer: Consumer, words: str) -> None:
    consumer.part.stopped = True  # its end is what is waited for
    await until_async(consumer.has_ended, "the refusal")
    assert consumer.part.exit_code == 1
    (line,) = [line for line in consumer.part.tail(20).splitlines() if line.startswith("error: ")]
    assert words in line
    assert "reset-offsets --topic" in line


async def test_truncation_of_the_log_is_refused_until_reset_offsets(
    tmp_path: Path, parts: Parts, database: str
) -> None:
    """A restart was refused only while the log was shorter than what was stored; then 50 records were skipped."""
    require_kafka()
    folder = tmp_path / "kafka"
    folder.mkdir()
    with ApacheKafka(folder) as kafka:
        rig = Rig(parts, tmp_path, kafka, database, f"trades-{uuid4().hex}")
        kafka.new_topic(rig.topic, PARTITIONS)
        await rig.command("migrate")
        for partition in (0, 1):
            send(rig, range(100), partition)
        consumer = rig.start()
        await until_async(lambda: rig.stored() == 200, "the trades")
        assert await rig.stop(consumer) == 0

        # While no consumer runs: cut, and grown past the stored offset before one starts.
        cut_log(kafka, folder, rig.topic, 1, 50)
        send(rig, range(200, 350), 1)
        await refused(rig.start(), "log truncation")
        assert rig.rows(STORED) == [(100, rig.rows(STORED)[0][1])]
        assert "truncation" in rig.rows(STORED)[0][1]
        assert rig.stored() == 200
        printed = await rig.command("reset-offsets", "--topic", rig.topic, "--to", "earliest")
        assert f"{rig.topic}[1]: 100 -> 0; no longer refused: " in printed
        assert f"{rig.topic}[0]: 100 -> 0\n" in printed

        # Beneath a running consumer.
        consumer = rig.start()
        await until_async(lambda: rig.stored() == 350, "what is in the log now")
        cut_log(kafka, folder, rig.topic, 1, 20)
        send(rig, range(400, 700), 1)
        await refused(consumer, f"{rig.topic}[1]")
        await refused(rig.start(), f"{rig.topic}[1]")
        await rig.command("reset-offsets", "--topic", rig.topic, "--to", "earliest", "--partition", "1")
        consumer = rig.start()
        await until_async(lambda: rig.stored() == 650, "what is in the log now")
        assert await rig.stop(consumer) == 0
