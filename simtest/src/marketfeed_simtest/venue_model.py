"""The venue in memory: the simulator's market, history, REST responses, limits, hub and faults; model sockets."""

import asyncio
import random
from collections import Counter, defaultdict, deque
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Final, NamedTuple, cast
from urllib.parse import parse_qs, urlsplit

import msgspec
from aiohttp import ClientConnectionError, ClientSession

from marketfeed_simtest.clock import Clock
from marketfeed_simtest.deliveries import Deliveries
from marketfeed_simtest.http_model import HttpSession, Response
from marketfeed_simtest.network import ClientEnd, VenueEnd, variant_of
from marketfeed_simtest.truth import Truth
from marketfeed_simulator.fault_effects import Parts
from marketfeed_simulator.fault_injector import FaultInjector
from marketfeed_simulator.faults import AnyFault, Ban, Drop, RateLimit
from marketfeed_simulator.frames import Frame
from marketfeed_simulator.hub import Hub
from marketfeed_simulator.instruments import Instrument, instrument
from marketfeed_simulator.ledger import Exchange
from marketfeed_simulator.limits import RequestLimits, SlidingLimit
from marketfeed_simulator.market import GeneratedMarket, Rates
from marketfeed_simulator.protocol import Session, streams_of
from marketfeed_simulator.request_faults import RequestFaults
from marketfeed_simulator.rest import RestServer
from marketfeed_simulator.rest_api import RestApi
from marketfeed_simulator.venue import VENUES, Venue
from marketfeed_workers.connection.transports.socket import FrameSink
from marketfeed_workers.venues.errors import Unreachable, error_for_status

_BATCH_FRAMES: Final = 1_000_000
_MOST_BUFFERED_BYTES: Final = 4 * 2**20
_ADDRESS: Final = "worker"
_REFUSALS: Final = (451, 403)
_EARLY_SECONDS: Final = 0.2
_LEAST_REFUSED_PAUSE_SECONDS: Final = 240.0
_REFUSED_PAUSE_SECONDS: Final = 360.0
"""Maximum retry delay of a worker after 451 or 403: five minutes with 20 % jitter."""
_WINDOW_SECONDS: Final = 10.0
_UNKNOWN_PAUSE_SECONDS: Final = 60
"""Retry delay of a worker after a 429 or 418 without a time."""


@dataclass(frozen=True, slots=True)
class Times:
    """Draw the latencies of one connection."""

    latency_seconds: float
    first_data_seconds: float


class Delivered(NamedTuple):
    """A trade that was delivered to the process `life`."""

    symbol: str
    series: int
    id: int
    life: int
    seconds: float


class _TradeData(msgspec.Struct):
    s: str
    t: int
    T: int


class _TradeFrame(msgspec.Struct):
    data: _TradeData


_trade_frame: Final = msgspec.json.Decoder(_TradeFrame)


class _Books(Exchange):
    """The exchange's history, which also feeds the oracle's reference."""

    def __init__(self, truth: Truth) -> None:
        super().__init__(keep_trades=0)
        self._truth = truth

    def record(self, frame: Frame) -> None:
        """Add a frame that the market just produced."""
        super().record(frame)
        self._truth.record(frame)

    def restart(self, symbol: str) -> None:
        """Start a new id series of the symbol."""
        super().restart(symbol)
        self._truth.restart(symbol)


class VenueModel:
    """See `marketfeed_simulator.server.Simulator`; `sockets`, `driver` and the HTTP session are this object itself.

    Attributes:
        truth: true history of the venue.
        complaints: limits that a client exceeded, and its requests while it was rate limited or banned.
        away_until: time until which a client was rate limited or banned.
        requests: number of REST requests.
        most_requests: maximum of them within ten seconds of one process and about one symbol.
        frames_delivered: number of frames of market data delivered to each process.
        delivered: trades among them, where that is tracked.
        deliveries: further checks of them.
    """

    def __init__(
        self,
        clock: Clock,
        rng: random.Random,
        *,
        venue: str,
        rates: Mapping[str, tuple[float, float]],
        seed: int,
        quantum_seconds: float,
        recent_trades: int,
        slow_subscriptions: bool,
        keeps_deliveries: bool,
    ) -> None:
        self.truth = Truth(clock)
        self.complaints: list[str] = []
        self.away_until = 0.0
        self.requests = 0
        self.most_requests = 0
        self._request_times: defaultdict[tuple[int, str], deque[float]] = defaultdict(deque)
        self.frames_delivered: Counter[int] = Counter()
        self.delivered: list[Delivered] = []
        self.deliveries = Deliveries(clock, self.truth, microseconds=VENUES[venue].microseconds)
        self._keeps_deliveries = keeps_deliveries
        self.skew_us = 0
        self.connections: dict[int, VenueEnd] = {}
        self.rules: Venue = VENUES[venue]
        self.recent_trades = recent_trades
        self._clock = clock
        self._rng = rng
        self._first_data_seconds = (0.0, 0.0, 0.1, 1.0) if slow_subscriptions else (0.0,)
        self._quantum_seconds = quantum_seconds
        self._opened = 0
        self._limits_by_life: dict[int, tuple[float, float]] = {}
        self._handshakes: dict[tuple[int, str], float] = {}
        self._forced_until = 0.0
        self.instruments: dict[str, Instrument] = {name: instrument(name) for name in rates}
        self.market = GeneratedMarket(
            [(self.instruments[name], Rates(*rate)) for name, rate in rates.items()],
            seed=seed,
            start_us=clock.true_us(),
            order_ids=self.rules.order_ids,
        )
        self._request_faults = RequestFaults()
        self._limits = RequestLimits(self.rules)
        self._attempts = SlidingLimit(self.rules.attempts, self.rules.attempts_window_seconds)
        books = _Books(self.truth)
        self.histories = books.histories
        self.hub = Hub(books)
        api = RestApi(self.rules, self.instruments, books.histories, books.quotes, {})
        self._rest = RestServer(api, self._limits, self._request_faults, self.server_us)
        self._desk = FaultInjector(
            Parts(
                hub=self.hub,
                driver=self,
                sockets=self,
                request_faults=self._request_faults,
                limits=self._limits,
                instruments=self.instruments,
                market=self.market,
            )
        )

    # the market
    @property
    def paced(self) -> bool:
        """Run the market by the clock."""
        return True

    def server_us(self) -> int:
        """Return the time of the venue's clock."""
        return self._clock.true_us() + self.skew_us

    async def run(self) -> None:
        """Produce the market's due frames, by quanta of time."""
        quantum = self._quantum_seconds
        while True:
            now_us = self._clock.true_us()
            for frame in self.market.pull(now_us, _BATCH_FRAMES):
                self.hub.publish(frame)
            self.hub.flush(_MOST_BUFFERED_BYTES)
            next_us = self.market.next_us()
            ahead = 1.0 if next_us is None else max(0.0, (next_us - now_us) / 1e6)
            await asyncio.sleep(min(1.0, (ahead // quantum + 1) * quantum))

    def strike(self, fault: AnyFault) -> None:
        """Start a fault now; one that this market cannot produce at this moment has no effect."""
        if isinstance(fault, (RateLimit, Ban)):
            self._forced_until = max(self._forced_until, self._clock.seconds + fault.seconds)
        with suppress(ValueError):
            self._desk.set(fault)

    def heal(self) -> None:
        """Remove every fault."""
        self._desk.clear()
        self._limits.reset()
        self.hub.lose = 0
        for name, each in self.instruments.items():
            if each.status != "TRADING":
                self.market.set_status(name, "TRADING")

    def drop_trades(self, count: int) -> None:
        """Lose the next `count` trades of each symbol in transit."""
        for name in self.instruments:
            self._desk.set(Drop(streams=(f"{name.lower()}@trade",), count=count, seconds=4))

    @property
    def odd_rows(self) -> set[tuple[str, int]]:
        """Return symbol and id of trades that REST returns in an undocumented format."""
        return self._request_faults.odd_rows

    # the socket's side: an `OpenSocket`
    async def open_socket(self, life: int, url: str, sink: FrameSink, timeout_seconds: float) -> ClientEnd:
        """Open a connection of the process `life`.

        Raises:
            Unreachable, Limited, Refused: as by a real venue.
        """
        times = Times(self._rng.uniform(0.001, 0.05), self._rng.choice(self._first_data_seconds))
        await asyncio.sleep(3 * times.latency_seconds)
        place = life, url
        if self._clock.seconds < self._handshakes.get(place, 0.0) - _EARLY_SECONDS:
            self.complaints.append("connected again before the time of a refusal was over")
        if not self._attempts.allows(self._clock.seconds):
            self.complaints.append("more connection attempts than the venue allows")
        fault = self._request_faults.refusal()
        if fault is not None:
            await asyncio.sleep(min(fault.delay_seconds, timeout_seconds))
            if fault.delay_seconds >= timeout_seconds:
                raise Unreachable("connect_timeout", f"{url}: no connection within {timeout_seconds:g} s")
            after = str(fault.retry_after_seconds) if fault.retry_after_seconds else None
            if fault.status in (429, 418):
                self._away_for(fault.retry_after_seconds or _UNKNOWN_PAUSE_SECONDS)
                self._handshakes[place] = self._clock.seconds + (
                    fault.retry_after_seconds or _UNKNOWN_PAUSE_SECONDS
                )
            elif fault.status in _REFUSALS:
                self._away_for(_REFUSED_PAUSE_SECONDS)
                self._handshakes[place] = self._clock.seconds + _LEAST_REFUSED_PAUSE_SECONDS
            raise error_for_status(fault.status, after, url)
        parts = urlsplit(url)
        query = parse_qs(parts.query)
        session = Session(self.rules, combined=True, streams=streams_of(query.get("streams", [""])[0]))
        asked = query.get("timeUnit", [""])[0].upper() == "MICROSECOND"
        given = self.rules.microseconds and not self._request_faults.milliseconds_only
        self._opened += 1
        end = VenueEnd(
            self._opened,
            life,
            self.hub,
            self.rules,
            self._clock,
            session,
            variant_of(session, microseconds=asked and given),
            times,
            self.complaints.append,
            partial(self._count, life),
            self._gone,
        )
        end.client.sink = sink
        self.connections[end.number] = end
        return end.client

    def unplug(self, life: int) -> None:
        """Drop the connections of the process `life`."""
        for end in list(self.connections.values()):
            if end.life == life:
                end.client.unplug()

    def _count(self, life: int, frames: list[bytes]) -> None:
        self.frames_delivered[life] += len(frames)
        self.deliveries.read(life, frames)
        for frame in frames if self._keeps_deliveries else ():
            with suppress(msgspec.MsgspecError, UnicodeDecodeError):  # corrupted by a fault
                trade = _trade_frame.decode(frame).data
                rows = self.truth.symbol(trade.s).trades_by_id.get(trade.t, [])
                for row in rows:
                    if trade.T in (row.time_us, row.time_us // 1000):
                        at = self._clock.seconds
                        self.delivered.append(Delivered(trade.s, row.series, trade.t, life, at))

    def _gone(self, end: VenueEnd) -> None:
        self.connections.pop(end.number, None)

    # the REST side: interface of `ClientSession`
    def http_session(self, life: int) -> ClientSession:
        """Return a client of the process `life`."""
        return cast(ClientSession, HttpSession(self.answer, life))

    async def answer(
        self, life: int, endpoint: str, query: Mapping[str, str], headers: Mapping[str, str]
    ) -> "Response":
        """Respond to a request as the network and the venue do.

        Raises:
            ClientConnectionError: the connection was cut.
        """
        sent = self._clock.seconds
        self._count_request((life, query.get("symbol", "")), sent)
        await asyncio.sleep(self._rng.uniform(0.01, 0.04))
        delay_seconds = self._request_faults.delay_seconds(endpoint)
        if delay_seconds:
            await asyncio.sleep(delay_seconds)
        if endpoint == "trades":
            query = {**query, "limit": str(min(int(query.get("limit", "500")), self.recent_trades))}
        self._check_limit(life, sent)
        struck = sum(each.hits for each in self._request_faults.errors)
        reply = self._rest.answer(endpoint, query, headers, _ADDRESS)
        if reply is None:
            raise ClientConnectionError("cut")
        if reply.status in (429, 418):
            if struck == sum(each.hits for each in self._request_faults.errors):
                self._check_forced(float(reply.headers.get("Retry-After") or 0))
            self._record_limit(life, sent, reply.headers.get("Retry-After"))
        elif reply.status in _REFUSALS:
            self._away_for(_REFUSED_PAUSE_SECONDS)
        return Response(reply.status, reply.body, reply.headers)

    def _count_request(self, about: tuple[int, str], now: float) -> None:
        self.requests += 1
        asked = self._request_times[about]
        asked.append(now)
        while asked[0] < now - _WINDOW_SECONDS:
            asked.popleft()
        self.most_requests = max(self.most_requests, len(asked))

    def _record_limit(self, life: int, sent: float, retry_after: str | None) -> None:
        """Record a rate limit or ban of a process; a new process does not inherit it."""
        now = self._clock.seconds
        seconds = float(retry_after) if retry_after else _UNKNOWN_PAUSE_SECONDS
        limited_at, limited_until = self._limits_by_life.get(life, (now, 0.0))
        self._limits_by_life[life] = (
            limited_at if sent <= limited_at else now,
            max(limited_until, now + seconds),
        )
        self._away_for(seconds)

    def _check_limit(self, life: int, sent: float) -> None:
        limited_at, limited_until = self._limits_by_life.get(life, (0.0, 0.0))
        if limited_at < sent < limited_until - 0.05:
            self.complaints.append("requested again before the time of a 429 or 418 was over")

    def _check_forced(self, seconds: float) -> None:
        """Check a 429 or 418 of the limits themselves: caused by a fault, or by its consequences."""
        now = self._clock.seconds
        if now > self._forced_until:
            self.complaints.append("used more request weight than the venue allows")
        self._forced_until = max(self._forced_until, now + seconds)

    def _away_for(self, seconds: float) -> None:
        self.away_until = max(self.away_until, self._clock.seconds + seconds)

    def reachable_from(self, symbol: str, *, has_key: bool) -> int:
        """Return the lowest id that REST can return: all by history, or the newest ones."""
        history = self.histories.get(symbol)
        if has_key or not self.rules.history_needs_key or history is None:
            return 0
        recent = history.recent(self.recent_trades)
        return recent[0].id if recent else 1 << 62
