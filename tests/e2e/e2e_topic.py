"""The trades' topic itself, read from its beginning to the log end offset by a program in a consumer's pod."""

import json
from dataclasses import dataclass
from typing import Any, Final

from e2e_kube import Kube

_READ_SECONDS: Final = 120.0
_PROGRAM: Final = """
import json, sys
from confluent_kafka import Consumer, TopicPartition
broker, topic, since_us = sys.argv[1], sys.argv[2], int(sys.argv[3])
consumer = Consumer({"bootstrap.servers": broker, "group.id": "e2e-reader", "enable.auto.commit": False})
parts = [TopicPartition(topic, number, 0) for number in consumer.list_topics(topic, 30).topics[topic].partitions]
ends = {part.partition: consumer.get_watermark_offsets(part, 30)[1] for part in parts}
consumer.assign(parts)
left = sum(ends.values())
last, messages, gaps = {}, 0, []
while left:
    for message in consumer.consume(1000, 30):
        assert message.error() is None, message.error()
        if message.offset() >= ends[message.partition()]:
            continue
        left -= 1
        trade = json.loads(message.value())
        symbol, number = trade["symbol"], trade["trade_id"]
        before = last.get(symbol, number - 1)
        last[symbol] = max(before, number)
        if trade["received_time_us"] >= since_us:
            messages += 1
            if number > before + 1:
                gaps.append([symbol, before + 1, number - 1])
consumer.close()
print(json.dumps({"messages": messages, "gaps": gaps}))
"""


@dataclass(frozen=True)
class Reading:
    """Content of the topic since some moment.

    Attributes:
        messages: number of messages; a trade that two workers read counts twice.
        gaps: (symbol, first, last) of ids that were published after a later one of the symbol, or not at all.
    """

    messages: int
    gaps: tuple[tuple[str, int, int], ...]


def read(kube: Kube, pod: dict[str, Any], broker: str, topic: str, since_us: int) -> Reading:
    """Read `topic` in the pod of a consumer.

    Raises:
        Failed: the program ended with an error, or not in time.
    """
    metadata = pod["metadata"]
    output = kube.run(
        *("--namespace", metadata["namespace"], "exec", metadata["name"], "--", "python", "-c", _PROGRAM),
        *(broker, topic, str(since_us)),
        seconds=_READ_SECONDS,
    )
    found = json.loads(output.splitlines()[-1])
    return Reading(found["messages"], tuple((symbol, first, last) for symbol, first, last in found["gaps"]))
