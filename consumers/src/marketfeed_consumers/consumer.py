"""The consumer's loop: poll, decode, plan, pass to the writer, commit offsets to Kafka afterwards.

It runs in one thread, while the writer's thread stores the previous batch::

    loop      read+decode 3 │ plan 3 │ read+decode 4 │ plan 4 │ …
    writer       transaction 2       │    transaction 3       │ …

reader.py polls and decodes, pipeline.py plans and submits, group_member.py handles rebalances, monitor.py checks
brokers and topics, waiting.py waits for the writer within max.poll.interval.ms. No transaction is open while the loop
waits for Kafka.
"""

import time
from collections.abc import Callable

from marketfeed_consumers.errors import LogLost
from marketfeed_consumers.kafka.batching import is_due, is_full
from marketfeed_consumers.kafka.group_member import GroupMember
from marketfeed_consumers.kafka.monitor import KafkaMonitor
from marketfeed_consumers.kafka.reader import Reader
from marketfeed_consumers.kafka.waiting import Stop, WriterWait
from marketfeed_consumers.planning.plan import Plan
from marketfeed_consumers.settings import ConsumerSettings
from marketfeed_consumers.state import State
from marketfeed_consumers.storage.pipeline import WritePipeline
from marketfeed_consumers.storage.transaction import Stored
from marketfeed_consumers.storage.writer import Writer
from marketfeed_consumers.world import REAL, World
from marketfeed_service.kafka import client_config


class Consumer:
    """The loop that moves records from Kafka to the writer until it is stopped."""

    def __init__(
        self,
        settings: ConsumerSettings,
        writer: Writer,
        state: State,
        *,
        name: str,
        observe: Callable[[Plan, Stored], None] = lambda _plan, _stored: None,
        world: World = REAL,
    ) -> None:
        self._drain_seconds = settings.drain_deadline_seconds
        self._writer = writer
        self._state = state
        self._stop = Stop()
        self._reader = Reader(settings, state, world.make_client)
        waiting = WriterWait(self._reader, writer, state, self._stop)
        self._pipeline = WritePipeline(settings, writer, state, self._reader, waiting, self._stop, observe)
        admin = world.make_admin({**client_config(settings), "log_level": 2})
        self._member = GroupMember(
            settings,
            name,
            writer,
            state,
            self._reader,
            self._pipeline,
            waiting,
            self._stop,
            admin,
            world.make_client,
        )
        self._monitor = KafkaMonitor(
            settings.required_topics(),
            admin,
            state,
            self._reader,
            self._pipeline.topic_ids,
            self._pipeline.submit_ends,
            world.monotonic,
        )

    def stop(self) -> None:
        """Make `run` drain and return within the drain deadline. May be called from a signal handler."""
        self._stop.request(self._drain_seconds)

    def run(self) -> None:
        """Consume until stopped, then drain.

        Raises:
            Fenced, LogLost, StartupError: the process must not continue; batches that were not stored are dropped.
        """
        self._monitor.begin()
        self._member.join()
        try:
            while not self._stop.requested:
                self._step()
            self._drain()
        except LogLost as lost:
            # Even if a refusal exists: the first reason is kept.
            self._member.store_refusals(lost.reasons)
            raise
        finally:
            self._writer.give_up()
            self._reader.client.close()

    def _step(self) -> None:
        self._state.last_step = time.monotonic()
        reader, pipeline = self._reader, self._pipeline
        pipeline.collect()
        self._writer.look()
        self._monitor.step()
        fill = reader.fill(writer_idle=pipeline.is_idle)
        if not is_full(fill, reader.bounds):
            reader.read(fill)
        elif not pipeline.has_room:
            pipeline.wait_for_room()
        # Otherwise the batch is full and the writer has become free: the batch is due now.
        if pipeline.has_room and is_due(reader.fill(writer_idle=pipeline.is_idle), reader.bounds):
            pipeline.submit_batch()
        pipeline.look()
        reader.hint(pipeline.hints)

    def _drain(self) -> None:
        if self._reader.batch.records:
            self._pipeline.submit_batch()
        self._pipeline.drain(max(0.0, self._stop.at_seconds - time.monotonic()))
        self._reader.hint(self._pipeline.hints, now=True)
