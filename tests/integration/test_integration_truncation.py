"""A partition whose log was truncated (power loss, unclean leader election) below the stored offset.

The records after the truncation are lost, and others replace them, up to the stored offset and beyond. Reading from the
stored offset would skip those silently; so the consumer refuses to continue, whatever the log's later state, until
reset-offsets.
"""

from pathlib import Path
from uuid import uuid4

import pytest
from confluent_kafka import Producer
from integration_consumers import PARTITIONS, Consumer, Rig, trade
from integration_kafka import ApacheKafka, cut_log, require_kafka

from marketfeed_cli.process import Parts
from marketfeed_devtools.waiting import until_async
from marketfeed_wire import encode, key_for

pytestmark = [pytest.mark.integration, pytest.mark.kafka]

STORED = 'SELECT next_offset, refusal FROM consumer_offsets WHERE "partition" = 1'


def send(rig: Rig, trade_ids: range, partition: int) -> None:
    """Publish to one partition, in batches at whose bounds a log can be truncated."""
    producer = Producer({"bootstrap.servers": rig.kafka.address, "linger.ms": 0, "log_level": 0})
    for number, trade_id in enumerate(trade_ids):
        symbol = f"SYM{partition}"
        producer.produce(rig.topic, encode(trade(trade_id, symbol)), key_for(symbol), partition)
        if number % 10 == 9:
            assert producer.flush(30) == 0
    assert producer.flush(30) == 0


async def refused(consumer: Consumer, words: str) -> None:
    consumer.part.stopped = True  # its exit is expected
    await until_async(consumer.has_ended, "the refusal")
    assert consumer.part.exit_code == 1
    (line,) = [line for line in consumer.part.tail(20).splitlines() if line.startswith("error: ")]
    assert words in line
    assert "reset-offsets --topic" in line


async def test_truncation_of_the_log_is_refused_until_reset_offsets(
    tmp_path: Path, parts: Parts, database: str
) -> None:
    """A restart was refused only while the log was shorter than the stored offset; then 50 records were skipped."""
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

        # While no consumer runs: truncated, and grown past the stored offset before one starts.
        cut_log(kafka, folder, rig.topic, 1, 50)
        send(rig, range(200, 350), 1)
        await refused(rig.start(), "log truncation")
        assert rig.rows(STORED) == [(100, rig.rows(STORED)[0][1])]
        assert "truncation" in rig.rows(STORED)[0][1]
        assert rig.stored() == 200
        printed = await rig.command("reset-offsets", "--topic", rig.topic, "--to", "earliest")
        assert f"{rig.topic}[1]: 100 -> 0; no longer refused: " in printed
        assert f"{rig.topic}[0]: 100 -> 0\n" in printed

        # While a consumer runs.
        consumer = rig.start()
        await until_async(lambda: rig.stored() == 350, "the records in the log")
        cut_log(kafka, folder, rig.topic, 1, 20)
        send(rig, range(400, 700), 1)
        await refused(consumer, f"{rig.topic}[1]")
        await refused(rig.start(), f"{rig.topic}[1]")
        await rig.command("reset-offsets", "--topic", rig.topic, "--to", "earliest", "--partition", "1")
        consumer = rig.start()
        await until_async(lambda: rig.stored() == 650, "the records in the log")
        assert await rig.stop(consumer) == 0
