"""The assignment of a worker: symbols and share of the venue's limits, by settings or an assignment file.

    file changed ─▶ decode ─▶ validate the symbols ─▶ resume each new one from its checkpoint in Kafka
                 ─▶ subscribe, unsubscribe ─▶ report the file's hash once the venue has confirmed all streams

The file is polled every second: a mounted ConfigMap is replaced by a symbolic link, which not every file system reports
as an event.
"""

import asyncio
from collections.abc import Sequence
from typing import Final

from marketfeed_service import logs
from marketfeed_service.errors import SettingsError, StartupError
from marketfeed_wire.assignment import Assignment, decode_assignment
from marketfeed_wire.codec import DecodeError
from marketfeed_workers import startup
from marketfeed_workers.connection.pool import ConnectionPool
from marketfeed_workers.kafka.recovery import recover_state
from marketfeed_workers.rate_limit import AttemptBudget, WeightBudget
from marketfeed_workers.settings import WorkerSettings
from marketfeed_workers.stream.pipeline import Pipeline
from marketfeed_workers.venues.errors import REFUSED_SECONDS, Refused, VenueError
from marketfeed_workers.venues.venue import VenueRest
from marketfeed_workers.world import World

log = logs.get(__name__)

CHECK_SECONDS: Final = 1.0
ADOPT_SECONDS: Final = (60.0, 300.0)
"""When the gap records are read again after symbols were added: the previous process may have overlapped."""
RECHECK_SECONDS: Final = 300.0
"""Interval of validating rejected symbols again: a symbol may have been listed."""


def read_assignment(file: str, world: World) -> Assignment:
    """Read an assignment file.

    Raises:
        SettingsError: the file cannot be read, or is not an assignment file.
    """
    try:
        return decode_assignment(world.read_file(file))
    except OSError as error:
        raise SettingsError(f"SYMBOLS_FILE={file!r} cannot be read: {error.strerror}") from None
    except DecodeError as error:
        raise SettingsError(f"SYMBOLS_FILE={file!r} is not an assignment file: {error}") from None


class SymbolAssignment:
    """The assigned symbols of a worker.

    Attributes:
        refused: assigned symbols that were rejected -> reason.
        applied: hash of the applied assignment file, whose streams the venue has all confirmed; "" without a file, or
            while a change is in progress.
    """

    def __init__(
        self,
        settings: WorkerSettings,
        rest: VenueRest,
        pipeline: Pipeline,
        pool: ConnectionPool,
        budgets: Sequence[WeightBudget | AttemptBudget],
        world: World,
    ) -> None:
        self.refused: dict[str, str] = {}
        self.applied = ""
        self._settings = settings
        self._rest = rest
        self._pipeline = pipeline
        self._pool = pool
        self._budgets = budgets
        self._world = world
        self._desired = Assignment((), "")
        self._recheck_due = 0.0
        self._adopt_due: list[float] = []
        self._problem = ""
        self._not_followed = logs.Episode(log, "assignment not applied", "assignment applied")

    async def begin(self) -> None:
        """Apply the initial assignment.

        Raises:
            SettingsError, StartupError: there is no valid symbol, or the venue or Kafka did not respond.
        """
        settings = self._settings
        if settings.symbols_file:
            self._desired = read_assignment(settings.symbols_file, self._world)
            self._set_budget_share(self._desired)
        else:
            self._desired = Assignment(settings.binance_symbols, "")
        chosen = await startup.validate_symbols(settings, self._rest, self._desired.symbols)
        if not chosen.accepted and not settings.symbols_file:
            raise startup.no_symbols_error(chosen)
        self.refused = chosen.refused
        self._recheck_due = self._world.monotonic() + RECHECK_SECONDS
        await self._add(chosen.accepted)
        await self._pool.read(chosen.accepted)

    async def run(self) -> None:
        """Apply changes of the assignment file and of the venue's listing until cancelled."""
        while True:
            if self._pool.covers(list(self._pipeline.flows)):
                self.applied = self._desired.hash
            delay = CHECK_SECONDS
            try:
                await self._check()
                await self._adopt_gaps()
                self._not_followed.end()
                self._problem = ""
            except (SettingsError, StartupError, VenueError) as error:
                self._log_once(str(error))
                if isinstance(error, Refused):
                    delay = REFUSED_SECONDS
            await asyncio.sleep(delay)

    async def _check(self) -> None:
        found = self._desired
        if self._settings.symbols_file:
            found = read_assignment(self._settings.symbols_file, self._world)
            self._set_budget_share(found)
        if found.hash != self._desired.hash:
            self.applied = ""
            await self._apply(found)
        elif self.refused and self._world.monotonic() >= self._recheck_due:
            await self._apply(found)

    async def _adopt_gaps(self) -> None:
        """Close gap records of a process that ran on beside this one."""
        if not self._adopt_due or self._world.monotonic() < self._adopt_due[0]:
            return
        recovered = await asyncio.to_thread(recover_state, self._settings, self._world.read_topic)
        del self._adopt_due[0]
        for symbol, flow in self._pipeline.flows.items():
            self._pipeline.gaps.adopt(flow, list(recovered.gaps[symbol].values()))

    async def _apply(self, found: Assignment) -> None:
        self._recheck_due = self._world.monotonic() + RECHECK_SECONDS
        listed = await self._rest.symbols() if self._settings.validate_on_start else None
        flows = self._pipeline.flows
        # Subscribed symbols stay while they are assigned, also if they are halted: trading will resume.
        unread = [symbol for symbol in found.symbols if symbol not in flows]
        refused = (await startup.readable_symbols(self._rest, unread, listed)).refused
        accepted = [symbol for symbol in found.symbols if symbol not in refused]
        added = [symbol for symbol in accepted if symbol not in flows]
        removed = [symbol for symbol in flows if symbol not in accepted]
        if added or removed:
            log.info("symbols changed", added=len(added), removed=len(removed), assignment=found.hash)
            self.applied = ""
        await self._add(added)
        await self._pool.read(accepted)
        for symbol in removed:
            self._pipeline.remove_symbol(symbol)
        self.refused = refused
        self._desired = found

    def _set_budget_share(self, found: Assignment) -> None:
        for budget in self._budgets:
            budget.share = found.budget_share or self._settings.venue_budget_share

    async def _add(self, symbols: list[str]) -> None:
        """Add `symbols`, each resumed from its checkpoint in Kafka."""
        if not symbols:
            return
        recovered = await asyncio.to_thread(recover_state, self._settings, self._world.read_topic)
        first_ids = {
            symbol: await startup.first_id(self._settings, self._rest, symbol)
            for symbol in symbols
            if symbol not in recovered.progress
        }
        now = self._world.monotonic()
        self._adopt_due = [now + seconds for seconds in ADOPT_SECONDS]
        for symbol in symbols:
            flow = self._pipeline.add_symbol(symbol)
            startup.resume(recovered, flow, first_ids.get(symbol))
            if flow.missing:
                self._pipeline.on_gap(symbol)

    def _log_once(self, problem: str) -> None:
        if problem != self._problem and self._not_followed.active:
            log.warning("assignment not applied for another reason", reason=problem)
        self._not_followed.begin(reason=problem)
        self._problem = problem
