"""Periodic check of Kafka: reachability of brokers, existence and ids of topics, log end offsets.

To a consumer that polls, a frozen broker, a misspelt topic and an idle partition look the same. The requests are small
and asynchronous.
"""

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Final

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient

from marketfeed_consumers.errors import LogLost
from marketfeed_consumers.kafka import admin_requests
from marketfeed_consumers.kafka.decode import Partition
from marketfeed_consumers.kafka.leases import AssignedPartition, refusal
from marketfeed_consumers.kafka.reader import Reader
from marketfeed_consumers.state import State
from marketfeed_service import logs

log = logs.get(__name__)

_INTERVAL_SECONDS: Final = 2.0
"""Interval of the check."""
_TIMEOUT_SECONDS: Final = 4.0
"""Request timeout; with the interval, an unreachable broker is reported within ten seconds."""
_MISSING: Final = (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC)
_NO_RESPONSE: Final = (KafkaError._TIMED_OUT, KafkaError._TRANSPORT, KafkaError._ALL_BROKERS_DOWN)


class KafkaMonitor:
    """Asynchronous checks of Kafka that update the consumer's state."""

    def __init__(
        self,
        topics: tuple[str, ...],
        admin: AdminClient,
        state: State,
        reader: Reader,
        topic_ids: Mapping[str, str],
        on_read_to_end: Callable[[Mapping[Partition, tuple[int, int]]], None],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Create a monitor that has not begun.

        Args:
            topics: the topics that must exist.
            admin: the admin client.
            state: the consumer's state, updated here.
            reader: the reader of records.
            topic_ids: topic -> the topic id of the stored offsets.
            on_read_to_end: gets partition -> (end offset, leader epoch) of partitions whose last records were control
                or aborted records, so that no batch advances their offsets.
            monotonic: clock of the intervals.
        """
        self._topics = topics
        self._admin = admin
        self._state = state
        self._reader = reader
        self._topic_ids = topic_ids
        self._on_read_to_end = on_read_to_end
        self._monotonic = monotonic
        self._can_describe = True
        self._topic_requests: Mapping[str, Any] = {}
        self._end_requests: Mapping[Any, Any] = {}
        self._ends_read: dict[Partition, int] = {}
        self._requested_at = self._responded_at = monotonic()
        self._failures = 0
        self._unreachable = logs.Episode(log, "Kafka unreachable", "Kafka reachable")
        self._missing = {topic: logs.Episode(log, "topic missing", "topic found") for topic in topics}

    def begin(self) -> None:
        """Detect whether the brokers can describe topics; called once a broker has responded."""
        with suppress(KafkaException):  # unreachable again: reported by the first check
            self._can_describe = admin_requests.has_controller(self._admin)

    def step(self) -> None:
        """Send requests or handle responses; does not block.

        Raises:
            LogLost: a subscribed topic was deleted and created again.
        """
        if self._state.brokers_down_at > self._requested_at:
            self._update_reachability("no broker can be reached", at_once=True)
        if not self._can_describe:
            self._update_missing_topics()
        futures = [*self._topic_requests.values(), *self._end_requests.values()]
        if not futures:
            if self._monotonic() - self._responded_at >= _INTERVAL_SECONDS:
                self._request()
        elif all(future.done() for future in futures):
            self._responded_at = self._monotonic()
            requests, self._topic_requests = self._topic_requests, {}
            end_requests, self._end_requests = self._end_requests, {}
            ends = admin_requests.collect_ends(self._admin, end_requests)
            self._update_reachability(*_failure(requests, ends))
            self._update_topics(requests)
            self._update_ends(ends)

    def _request(self) -> None:
        self._requested_at = self._responded_at = self._monotonic()
        self._ends_read = dict(self._reader.ends)
        if self._can_describe:
            # Includes optional topics with assigned partitions, which can be created again, too.
            topics = dict.fromkeys((*self._topics, *(topic for topic, _ in self._state.partitions.copy())))
            self._topic_requests = admin_requests.request_topic_ids(
                self._admin, list(topics), _TIMEOUT_SECONDS
            )
        if self._state.partitions:
            self._end_requests = admin_requests.request_ends(
                self._admin, self._state.partitions.copy(), latest=True, seconds=_TIMEOUT_SECONDS
            )

    def _update_reachability(self, failure: str, at_once: bool) -> None:
        """Update the reachability of Kafka.

        A single failed response (a partition's leader is changing) is ignored.

        Args:
            failure: the error; "" if all requests succeeded.
            at_once: whether the first failure counts.
        """
        if not failure:
            self._failures = 0
            self._state.kafka_error = ""
            self._unreachable.end()
            return
        self._failures += 1
        if self._failures == 1 and not at_once:
            return
        self._state.kafka_error = f"Kafka does not respond: {failure}"
        self._unreachable.begin(reason=failure)
        for owned in self._state.partitions.values():
            owned.end_offset = None

    def _update_topics(self, requests: Mapping[str, Any]) -> None:
        """Update the missing topics, and check that the topic ids are those of the stored offsets.

        A topic can be deleted and created again without a rebalance, and Kafka's client then continues in the new topic
        from the old offset. Rows stored meanwhile are valid, under the old topic's id; reset-offsets reads the skipped
        records.
        """
        for topic, future in requests.items():
            error = future.exception()
            if error is None:
                self._note_topic(topic, missing=False)
            elif _code(error) in _MISSING:
                self._note_topic(topic, missing=True)
        for (topic, number), owned in self._state.partitions.items():
            now = admin_requests.topic_id_of(requests[topic]) if topic in requests else ""
            found = AssignedPartition(topic, number, now, 0, owned.next_offset)
            if reason := refusal(found, owned.next_offset, self._topic_ids.get(topic, "")):
                raise LogLost({(topic, number): reason})

    def _update_missing_topics(self) -> None:
        """Update the missing topics without topic descriptions: unknown to the client, and no partition is assigned."""
        self._state.unknown_topics -= {topic for topic, _ in self._state.partitions}
        for topic in self._topics:
            self._note_topic(topic, missing=topic in self._state.unknown_topics)

    def _note_topic(self, topic: str, *, missing: bool) -> None:
        if topic not in self._missing:
            return
        if missing:
            self._state.missing_topics.add(topic)
            self._missing[topic].begin(topic=topic)
        else:
            self._state.missing_topics.discard(topic)
            self._missing[topic].end(topic=topic)

    def _update_ends(self, ends: admin_requests.Ends) -> None:
        on_read_to_end: dict[Partition, tuple[int, int]] = {}
        for partition in ends.errors:
            if partition in self._state.partitions:
                self._state.partitions[partition].end_offset = None
        for partition, end in ends.found.items():
            owned = self._state.partitions.get(partition)
            if owned is None:
                continue
            owned.end_offset = end.offset
            read = self._ends_read.get(partition, -1)
            # Read to its end before the request, so the returned leader epoch covers the log up to that offset.
            if owned.next_offset < read <= end.offset and self._reader.ends.get(partition) == read:
                on_read_to_end[partition] = (read, end.leader_epoch)
        if on_read_to_end and not self._reader.batch.records:
            self._on_read_to_end(on_read_to_end)


def _failure(requests: Mapping[str, Any], ends: admin_requests.Ends) -> tuple[str, bool]:
    """Return why Kafka does not respond ("" if it does), and whether it is unreachable.

    A missing topic is a response.
    """
    missing = {topic for topic, future in requests.items() if _code(future.exception()) in _MISSING}
    for future in requests.values():
        error = future.exception()
        if error is not None and _code(error) not in _MISSING:
            return _text(error), _code(error) in _NO_RESPONSE
    for (topic, number), error in ends.errors.items():
        if topic not in missing and error.code() not in (*_MISSING, *admin_requests.STALE):
            return f"{topic}[{number}]: {error.str()}", error.code() in _NO_RESPONSE
    return "", False


def _code(error: BaseException | None) -> Any:
    return error.args[0].code() if isinstance(error, KafkaException) else None


def _text(error: BaseException) -> str:
    return str(error.args[0].str()) if isinstance(error, KafkaException) else str(error)
