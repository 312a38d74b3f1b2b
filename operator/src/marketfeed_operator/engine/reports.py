"""What the pods say of themselves: their /status, asked for in turns and cut down to what is told of it.

Beside the reconciliation and never in it: a pod that does not answer must not keep its feed from being changed.
"""

import asyncio
from collections.abc import Awaitable, Callable

import aiohttp
import msgspec

from marketfeed_operator.names import INGESTION
from marketfeed_operator.observed import Key, PodFacts, PodReport
from marketfeed_operator.store import Store
from marketfeed_wire.status import ConsumerStatus, WorkerStatus

ANSWER_SECONDS = 3
MAX_BYTES = 4 * 2**20
AT_ONCE = 32
MISSED_ANSWERS = 3
"""A report stands until this many answers in a row have failed: a busy node is no reason to tell another status."""


class Reports:
    """The newest report of each pod.

    Args:
        port: of /status in every pod.
        changed: is told of a feed when something of its pods' reports matters that was not known.
    """

    def __init__(self, store: Store, *, port: int, changed: Callable[[Key], Awaitable[None]]) -> None:
        self._store = store
        self._port = port
        self._changed = changed
        self.by_pod: dict[str, PodReport] = {}
        self._missed: dict[str, int] = {}

    async def run(self, interval_seconds: float) -> None:
        """Ask every pod, again and again."""
        timeout = aiohttp.ClientTimeout(total=ANSWER_SECONDS)
        async with aiohttp.ClientSession(
            timeout=timeout, connector=aiohttp.TCPConnector(limit=AT_ONCE, force_close=True)
        ) as session:
            while True:
                await self.ask_all(session)
                await asyncio.sleep(interval_seconds)

    async def ask_all(self, session: aiohttp.ClientSession) -> None:
        """Ask every pod once."""
        known = self._store.pod_uids()
        self.by_pod = {uid: report for uid, report in self.by_pod.items() if uid in known}
        self._missed = {uid: missed for uid, missed in self._missed.items() if uid in known}
        gate = asyncio.Semaphore(AT_ONCE)
        async with asyncio.TaskGroup() as asking:
            for feed in list(self._store.feeds):
                asking.create_task(self._ask_feed(session, feed, gate))

    async def _ask_feed(self, session: aiohttp.ClientSession, feed: Key, gate: asyncio.Semaphore) -> None:
        # At the same time: pods of a node that is gone keep us waiting for each of them.
        found = await asyncio.gather(
            *(self._ask_pod(session, pod, gate) for pod in self._store.pods_of(feed))
        )
        if any(found):
            await self._changed(feed)

    async def _ask_pod(self, session: aiohttp.ClientSession, pod: PodFacts, gate: asyncio.Semaphore) -> bool:
        """Ask one pod; whether its answer matters at once."""
        if not pod.ip:
            return self.by_pod.pop(pod.uid, None) is not None
        async with gate:
            report = await self._ask(session, pod)
        return self._take(pod.uid, report)

    def _take(self, uid: str, report: PodReport | None) -> bool:
        """Take in a pod's answer, None for none; whether it matters at once."""
        if report is None:
            self._missed[uid] = self._missed.get(uid, 0) + 1
            return self._missed[uid] >= MISSED_ANSWERS and self.by_pod.pop(uid, None) is not None
        self._missed.pop(uid, None)
        before = self.by_pod.get(uid)
        self.by_pod[uid] = report
        return before is None or _telling(before) != _telling(report)

    async def _ask(self, session: aiohttp.ClientSession, pod: PodFacts) -> PodReport | None:
        host = f"[{pod.ip}]" if ":" in pod.ip else pod.ip
        try:
            # A pod that sends us elsewhere would choose whom the operator asks.
            async with session.get(f"http://{host}:{self._port}/status", allow_redirects=False) as answer:
                if answer.status != 200:
                    return None
                body = await answer.content.read(MAX_BYTES)
                while len(body) < MAX_BYTES and not answer.content.at_eof():
                    body += await answer.content.read(MAX_BYTES - len(body))
            return report_of(pod.component, body)
        except (aiohttp.ClientError, TimeoutError, OSError, msgspec.DecodeError):
            return None


def report_of(component: str, body: bytes) -> PodReport:
    """The report in a /status body.

    Raises:
        msgspec.DecodeError: the body is none.
    """
    if component == INGESTION:
        worker = msgspec.json.decode(body, type=WorkerStatus)
        times = [
            told.last_trade_time_us for told in worker.symbols.values() if told.last_trade_time_us is not None
        ]
        return PodReport(
            assignment=worker.assignment,
            last_trade_time_us=max(times, default=None),
            missing_trades=sum(told.missing for told in worker.symbols.values()),
            refused=dict(worker.refused_symbols),
            reason=worker.reason,
        )
    consumer = msgspec.json.decode(body, type=ConsumerStatus)
    behind = [
        max(0, told.end_offset - told.next_offset)
        for told in consumer.partitions
        if told.end_offset is not None
    ]
    return PodReport(lag=sum(behind) if behind else None, reason=consumer.reason)


def _telling(report: PodReport) -> tuple[object, ...]:
    """What a change of is worth a status at once; the rest is told at the next resync."""
    return (report.assignment, tuple(sorted(report.refused)), report.missing_trades > 0)
