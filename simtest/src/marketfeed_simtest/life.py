"""A worker's processes: `worker.run` with a world of models, ended like processes, followed by the next one."""

import asyncio
import random
import signal
from collections.abc import Callable, Iterator, Mapping
from contextvars import copy_context
from functools import partial
from types import TracebackType
from typing import Any, Literal, cast

from confluent_kafka import KafkaError, KafkaException, Producer
from prometheus_client import CollectorRegistry

from marketfeed_service.errors import SettingsError, StartupError
from marketfeed_service.health import Health, HealthServer
from marketfeed_simtest.clock import Clock, Handlers, signal_handlers
from marketfeed_simtest.kafka_log import Cluster
from marketfeed_simtest.kafka_producer import ProducerModel
from marketfeed_simtest.venue_model import VenueModel
from marketfeed_wire.status import WorkerStatus
from marketfeed_workers import worker
from marketfeed_workers.connection.transports.socket import FrameSink, Socket
from marketfeed_workers.settings import WorkerSettings
from marketfeed_workers.status import WorkerHealth
from marketfeed_workers.world import World

Ending = Literal["running", "exited", "killed", "crashed"]


class Endpoints:
    """Replaces the HTTP server, which has a thread of its own: keeps the content of the endpoints."""

    def __init__(self, life: "Life", health: Health, registry: CollectorRegistry) -> None:
        self.port = 0
        self._life = life
        self._served = cast(WorkerHealth, health), registry

    def write_port(self, _: str) -> None:
        """See `HealthServer`."""

    def __enter__(self) -> "Endpoints":
        self._life.health, self._life.registry = self._served
        self._life.is_serving = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._life.is_serving = False


class Life:
    """One process.

    Attributes:
        number: 1 for the session's first.
        began, ended: times by the session's clock.
        ending: kind of its end; `code` is its exit code where it exited.
        health, registry: content of its endpoints; the last one after its end. None before they served.
        is_serving: whether the endpoints respond.
        error: exception of a crash.
    """

    def __init__(
        self,
        number: int,
        settings: WorkerSettings,
        clock: Clock,
        cluster: Cluster,
        venue: VenueModel,
        seed: int,
        poll_seconds: float,
        files: Mapping[str, bytes],
    ) -> None:
        self.number = number
        self.began = clock.seconds
        self.ended = float("inf")
        self.ending: Ending = "running"
        self.code = 0
        self.health: WorkerHealth | None = None
        self.registry: CollectorRegistry | None = None
        self.is_serving = False
        self.error: BaseException | None = None
        self.on_end: Callable[[Life], None] = _ignore
        self.producers: list[ProducerModel] = []
        self._settings = settings
        self._clock = clock
        self._cluster = cluster
        self._venue = venue
        self._handlers: Handlers = {}
        self._world = World(
            now_us=clock.wall_us,
            monotonic=lambda: clock.seconds,
            rng=random.Random(f"worker {seed} {number}"),  # noqa: S311 - a test that can be repeated
            open_socket={"picows": self._open_socket},
            http_session=partial(venue.http_session, number),
            make_producer=self._make_producer,
            read_topic=self._read_topic,
            wait_for_broker=self._wait_for_broker,  # type: ignore[arg-type] # a coroutine function, see VirtualLoop
            ensure_topics=lambda _: None,
            make_topic_probe=lambda _: self._probe_topics,
            make_health_server=self._make_endpoints,
            read_file=files.__getitem__,
            poll_seconds=poll_seconds,
        )
        self._context = copy_context()
        self._context.run(signal_handlers.set, self._handlers)
        self._task = asyncio.get_running_loop().create_task(
            self._run(), name=f"life-{number}", context=self._context
        )

    @property
    def is_running(self) -> bool:
        """Return whether the process runs."""
        return self.ending == "running"

    @property
    def was_refused(self) -> bool:
        """Return whether Kafka rejected one of its records permanently."""
        return any(producer.has_failed for producer in self.producers)

    def status(self) -> WorkerStatus | None:
        """Return the response of /status; None while the endpoints do not respond."""
        return self.health.worker_status() if self.is_serving and self.health is not None else None

    def terminate(self) -> None:
        """SIGTERM."""
        handler = self._handlers.get(signal.SIGTERM)
        if handler is not None:
            self._context.run(handler)

    def kill(self, *, write_in_flight: bool = True) -> None:
        """Kill the process: nothing that it does from now on has an effect."""
        if not self.is_running:
            return
        self.ending, self.ended, self.is_serving = "killed", self._clock.seconds, False
        for producer in self.producers:
            if producer.is_dead:
                continue
            if write_in_flight:
                producer.kill()
            else:
                producer.kill_now()
        self._venue.unplug(self.number)
        self._task.cancel()

    async def gone(self) -> None:
        """Wait until none of its tasks runs any more."""
        await asyncio.wait({self._task})

    async def _run(self) -> None:
        try:
            self.code = await worker.run(self._settings, self._world)
        except StartupError:
            self.code = 1
        except SettingsError:
            self.code = 2
        except asyncio.CancelledError:
            if self.ending != "killed":
                raise
        except BaseException as error:  # noqa: BLE001 - whatever it is, the process has crashed with it
            if self.ending != "killed":
                self.ending, self.error = "crashed", _innermost(error)
        finally:
            self._bury()

    def _bury(self) -> None:
        if self.ending == "running":
            self.ending = "exited"
        if self.ending != "killed":
            self.ended = self._clock.seconds
        for producer in self.producers:
            if not producer.is_dead:
                producer.kill()
        self._venue.unplug(self.number)
        self.on_end(self)

    # the world
    async def _open_socket(self, url: str, sink: FrameSink, timeout_seconds: float) -> Socket:
        return await self._venue.open_socket(self.number, url, sink, timeout_seconds)

    def _make_producer(self, config: dict[str, Any]) -> Producer:
        for producer in self.producers:  # replaced after a rejection: none of its records is written any more
            producer.discard_in_flight()
        made = ProducerModel(self._cluster, config, self.number)
        self.producers.append(made)
        return cast(Producer, made)

    async def _wait_for_broker(self, settings: WorkerSettings, *, stopping: Callable[[], bool]) -> None:
        deadline = self._clock.seconds + settings.start_deadline_seconds
        while not self._cluster.is_up and not stopping():
            if self._clock.seconds >= deadline:
                raise StartupError("no Kafka broker responded")
            await asyncio.sleep(0.5)

    def _read_topic(self, _: WorkerSettings, topic: str, _deadline: float) -> Iterator[bytes]:
        if not self._cluster.is_up:
            raise KafkaException(KafkaError(KafkaError._TRANSPORT, "no broker"))
        return self._cluster.compacted(topic)

    def _probe_topics(self) -> str:
        return "" if self._cluster.is_up else "Kafka does not respond: the brokers are gone"

    def _make_endpoints(self, health: Health, registry: CollectorRegistry, **_: Any) -> HealthServer:
        return cast(HealthServer, Endpoints(self, health, registry))


def _innermost(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _ignore(_: Life) -> None:
    """Do nothing: no client is connected."""
