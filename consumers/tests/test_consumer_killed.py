"""The real process, killed by SIGKILL at every failpoint, in an order drawn from a seed.

Each seed: trades of three symbols with gaps, duplicates, a late backfill and junk, and quotes; consumers that kill
themselves at a failpoint (the first to fourth time), one after the other, until each failpoint was used; then one that
is not killed. The tables then equal the published messages row by row, without duplicates. Most restarts are of a
static member; some are a new member.

`make chaos` runs hundreds of seeds, on Apache Kafka where Java and Maven are there.
"""

import os
import random
import signal
from pathlib import Path

import pytest
from consumer_market import quote, trade
from consumer_support import differences, everything, rows
from msgspec.structs import astuple

from marketfeed_consumers.storage import transaction, writer
from marketfeed_devtools.waiting import until

pytestmark = pytest.mark.integration

FIRST_SEED = int(os.environ.get("MARKETFEED_CHAOS_FIRST_SEED", "0"))
SEEDS = range(FIRST_SEED, FIRST_SEED + int(os.environ.get("MARKETFEED_CHAOS_SEEDS", "1")))
SESSION_MS = "6000" if os.environ.get("MARKETFEED_KAFKA_BROKER") else "4000"
"""Apache Kafka's minimum; above the 3 s for which the mock broker delays the first rebalance of a group."""
SYMBOLS = ("BTCUSDT", "ETHUSDT", "SOLUSDT")

NEXT_OFFSETS = "SELECT sum(next_offset) FROM consumer_offsets"
TRADES_AS_TEXT = """
SELECT venue, symbol, trade_id, price::text, qty::text, buyer_is_maker, trade_time_us, event_time_us,
    received_time_us, origin FROM trades ORDER BY symbol, trade_id
"""


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.timeout(600)
def test_killed_at_every_failpoint_stores_each_message_exactly_once(start, publish, topic, database, seed):
    rng = random.Random(seed)  # noqa: S311 - a schedule
    sent = [trade(i, symbol) for i in range(800) if i % 97 for symbol in SYMBOLS]
    quotes = [quote(i * 3 + 1, symbol) for i in range(500) for symbol in SYMBOLS[:2]]
    late = [trade(i, "BTCUSDT", origin="backfill") for i in range(97, 400, 97)]
    redelivered = rng.sample(sent, 300)
    publish(topic, *sent, b"junk", *redelivered, *late)
    publish(f"{topic}-book", *quotes, *rng.sample(quotes, 100))
    points = [(point, rng.randint(1, 4)) for point in transaction.FAILPOINTS]
    points += [(point, 1) for point in writer.LEASE_FAILPOINTS]
    rng.shuffle(points)
    for number, (point, times) in enumerate(points):
        killed = start(
            str(Path(__file__).with_name("consumer_killed.py")), point, str(times),
            BATCH_MAX_ROWS=str(rng.randint(20, 80)), KAFKA_SESSION_TIMEOUT_MS=SESSION_MS,
            KAFKA_GROUP_INSTANCE_ID="pod-0" if rng.random() < 0.9 else f"pod-{number}",
        )  # fmt: skip
        assert killed.process.wait(120) == -signal.SIGKILL, killed.log.read_text()
    consumer = start(KAFKA_SESSION_TIMEOUT_MS=SESSION_MS, KAFKA_GROUP_INSTANCE_ID="pod-0")
    everywhere = len(sent) + len(redelivered) + len(late) + 1 + len(quotes) + 100
    until(lambda: rows(database, NEXT_OFFSETS) == [(everywhere,)], "the end of the topics", 120)
    assert consumer.stop() == 0, consumer.log.read_text()
    expected = sorted([*sent, *late], key=lambda one: (one.symbol, one.trade_id))
    assert [astuple(one)[:-2] for one in expected] == [
        (*row[:3], *map(str, row[3:5]), *row[5:]) for row in rows(database, TRADES_AS_TEXT)
    ]
    held = everything(database)
    assert len(held["book_tickers"]) == len(quotes)
    assert len(held["dead_letters"]) == 1
    assert differences(database) == {}
