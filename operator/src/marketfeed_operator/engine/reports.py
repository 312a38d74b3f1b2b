"""Reports of the pods: their /status, polled and reduced to the fields of a feed's status.

Outside of reconciliation: a pod that does not respond must not block its feed. Anyone who may create pods in a
namespace may set a feed's labels, so responses are untrusted, see `report_of`.
"""

import asyncio
from collections.abc import Awaitable, Callable

import aiohttp

from marketfeed_operator.engine.metrics import Metrics
from marketfeed_operator.engine.pod_status import MAX_BYTES, report_of
from marketfeed_operator.observed import Key, PodFacts, PodReport
from marketfeed_operator.store import Store
from marketfeed_operator.text import printable
from marketfeed_service import logs
from marketfeed_service.http_body import BadBody, decode_body

log = logs.get(__name__)

RESPONSE_SECONDS = 3
AT_ONCE = 32
TURN_SECONDS = RESPONSE_SECONDS + 1
"""A feed that takes longer continues, and is skipped in the next rounds until it ends: others do not wait for it."""
MAX_SKIPPED = 15
"""Maximum number of consecutive rounds in which an unresponsive pod is skipped."""
PER_FEED_AT_ONCE = 8
"""Limit per feed, so that the pods of one feed cannot occupy all slots."""
MISSED_RESPONSES = 3
"""A report is kept until this many consecutive requests failed: a busy node does not change the status."""


class Reports:
    """Latest report of each pod.

    Args:
        port: port of /status in every pod.
        changed: called for a feed when a significant part of its reports has changed.

    Attributes:
        by_pod: pod uid -> its report.
        problems: pod uid -> why its response is invalid, for pods that respond.
    """

    def __init__(
        self, store: Store, metrics: Metrics, *, port: int, changed: Callable[[Key], Awaitable[None]]
    ) -> None:
        self._store = store
        self._metrics = metrics
        self._port = port
        self._changed = changed
        self.by_pod: dict[str, PodReport] = {}
        self.problems: dict[str, str] = {}
        self._missed: dict[str, int] = {}
        self._skipped: dict[str, int] = {}
        """Pod uid -> number of rounds in which it is skipped."""
        self._polling: dict[Key, asyncio.Task[None]] = {}
        self._gate = asyncio.Semaphore(AT_ONCE)

    def session(self) -> aiohttp.ClientSession:
        """Return a session for `poll_all`."""
        return aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=RESPONSE_SECONDS),
            connector=aiohttp.TCPConnector(limit=0, force_close=True),
            cookie_jar=aiohttp.DummyCookieJar(),
        )

    async def poll_all(self, session: aiohttp.ClientSession) -> None:
        """Poll every pod once, except of feeds whose last round continues; return when all are done, or on timeout."""
        known = self._store.pod_uids()
        self.by_pod = {uid: report for uid, report in self.by_pod.items() if uid in known}
        self.problems = {uid: problem for uid, problem in self.problems.items() if uid in known}
        self._missed = {uid: missed for uid, missed in self._missed.items() if uid in known}
        self._skipped = {uid: turns for uid, turns in self._skipped.items() if uid in known}
        for feed in list(self._store.feeds):
            if feed not in self._polling:  # otherwise its last round continues
                self._polling[feed] = asyncio.create_task(self._poll_feed(session, feed))
        if self._polling:
            await asyncio.wait(self._polling.values(), timeout=TURN_SECONDS)
        ended = {feed: task for feed, task in self._polling.items() if task.done()}
        for feed in ended:
            del self._polling[feed]
        for task in ended.values():
            task.result()

    async def end(self) -> None:
        """Stop polling."""
        for task in self._polling.values():
            task.cancel()
        await asyncio.gather(*self._polling.values(), return_exceptions=True)
        self._polling.clear()

    async def _poll_feed(self, session: aiohttp.ClientSession, feed: Key) -> None:
        # Concurrently: each pod of a lost node costs the full timeout.
        own = asyncio.Semaphore(PER_FEED_AT_ONCE)
        found = await asyncio.gather(
            *(self._poll_pod(session, pod, own) for pod in self._store.pods_of(feed))
        )
        if any(found):
            await self._changed(feed)

    async def _poll_pod(self, session: aiohttp.ClientSession, pod: PodFacts, own: asyncio.Semaphore) -> bool:
        """Poll one pod. Return whether the change is significant."""
        if not pod.ip:
            self.problems.pop(pod.uid, None)
            return self.by_pod.pop(pod.uid, None) is not None
        if self._skipped.get(pod.uid, 0) > 0:
            self._skipped[pod.uid] -= 1
            return False
        async with own, self._gate:
            report, problem = await self._request(session, pod)
        changed = problem != self.problems.get(pod.uid, "")
        if problem:
            self._metrics.pod_status_rejected.inc()
            self.problems[pod.uid] = problem
        else:
            self.problems.pop(pod.uid, None)
        if changed and problem:
            log.warning("pod status rejected", pod=f"{pod.namespace}/{pod.name}", reason=problem)
        return self._take(pod.uid, report) or changed

    def _take(self, uid: str, report: PodReport | None) -> bool:
        """Store a pod's report, None for none. Return whether the change is significant."""
        if report is None:
            self._missed[uid] = self._missed.get(uid, 0) + 1
            return self._missed[uid] >= MISSED_RESPONSES and self.by_pod.pop(uid, None) is not None
        self._missed.pop(uid, None)
        before = self.by_pod.get(uid)
        self.by_pod[uid] = report
        return before is None or _significant(before) != _significant(report)

    def _back_off(self, uid: str) -> None:
        """Poll a pod that does not respond less often: each request occupies a shared slot until its timeout."""
        excess = self._missed.get(uid, 0) + 1 - MISSED_RESPONSES
        self._skipped[uid] = min(2 ** min(max(excess, 0), 10) - 1, MAX_SKIPPED)

    async def _request(self, session: aiohttp.ClientSession, pod: PodFacts) -> tuple[PodReport | None, str]:
        """Return the report or None, and why a response is invalid or ""."""
        host = f"[{pod.ip}]" if ":" in pod.ip else pod.ip
        try:
            # A redirect would let the pod choose which address the operator requests.
            async with session.get(f"http://{host}:{self._port}/status", allow_redirects=False) as response:
                if response.status != 200:
                    return None, ""
                decode = lambda body: report_of(pod.component, body)  # noqa: E731 - bound to this pod
                return await decode_body(response, decode, max_bytes=MAX_BYTES), ""
        except BadBody as error:
            return None, printable(f"{error}", 200)
        except TimeoutError:
            self._back_off(pod.uid)
            return None, ""
        except (aiohttp.ClientError, OSError):
            return None, ""
        except Exception as error:  # the response is untrusted: any error concerns this pod only
            log.exception("pod status failed", pod=f"{pod.namespace}/{pod.name}")
            return None, printable(f"{type(error).__name__}: {error}", 200)


def _significant(report: PodReport) -> tuple[object, ...]:
    """Return the fields whose change is written to the status at once; others follow at the next resync."""
    return (report.assignment, tuple(sorted(report.refused)), report.missing_trades > 0)
