"""Back-pressure: reading of all sockets is paused while the queue to Kafka is full."""

from collections.abc import Callable

from marketfeed_service import logs
from marketfeed_workers.connection.transports.socket import Socket
from marketfeed_workers.counters import Counters
from marketfeed_workers.kafka.publisher import Publisher

log = logs.get(__name__)


class BackPressure:
    """Pauses and resumes reading of the attached sockets."""

    def __init__(self, publisher: Publisher, counters: Counters, monotonic: Callable[[], float]) -> None:
        self._publisher = publisher
        self._counters = counters
        self._paused = logs.Episode(log, "reads paused", "reads resumed", monotonic)
        self._sockets: dict[Socket, None] = {}  # in the order of attachment

    @property
    def paused(self) -> bool:
        """Whether reading and backfill are paused until Kafka acknowledges."""
        return self._paused.active

    def attach(self, socket: Socket) -> None:
        """Add a socket, so that reading it can be paused."""
        self._sockets[socket] = None
        if self.paused:
            socket.pause_reading()

    def detach(self, socket: Socket) -> None:
        """Remove a socket that was closed."""
        self._sockets.pop(socket, None)

    def pause(self) -> None:
        """Pause reading until `resume`."""
        if not self.paused:
            self._counters.paused_reads += 1
            self._paused.begin(pending=self._publisher.pending)
            for socket in self._sockets:
                socket.pause_reading()

    def resume(self) -> None:
        """Resume reading."""
        self._paused.end(pending=self._publisher.pending)
        for socket in list(self._sockets):
            socket.resume_reading()
            if self.paused:  # the frames kept by this socket filled the queue again
                break
