"""What the worker is given to do: by its settings, or by an assignment file that changes while it runs.

That is the symbols that it reads, and with how many others it shares the venue's budgets.

    file changes ─▶ is it whole? ─▶ does the venue trade them? ─▶ resume each new one from Kafka's memory
                 ─▶ subscribe, then let go of what went ─▶ report the file's hash once the venue has confirmed all

The file is read again every second and not watched by events: a mounted ConfigMap is swapped by links, and not every
file system tells of that.
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
"""How often the venue is asked again about symbols that were left out: a halt ends, a listing begins."""


def read_assignment(file: str, world: World) -> Assignment:
    """The assignment in `file`.

    Raises:
        SettingsError: it cannot be read, or is not what the operator writes.
    """
    try:
        return decode_assignment(world.read_file(file))
    except OSError as error:
        raise SettingsError(f"SYMBOLS_FILE={file!r} cannot be read: {error.strerror}") from None
    except DecodeError as error:
        raise SettingsError(f"SYMBOLS_FILE={file!r} is no assignment file: {error}") from None


class SymbolAssignment:
    """The symbols of a worker.

    Attributes:
        refused: symbols that were asked for and left out -> the reason.
        applied: hash of the assignment file that is in force: the venue has confirmed each of its symbols; ""
            without such a file, or while a change is under way.
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
        self._look_again_due = 0.0
        self._adopt_due: list[float] = []
        self._problem = ""
        self._not_followed = logs.Episode(log, "assignment not applied", "assignment applied")

    async def begin(self) -> None:
        """Settle what is read at first.

        Raises:
            SettingsError, StartupError: there is nothing to read, or the venue or Kafka could not be asked.
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
        self._look_again_due = self._world.monotonic() + RECHECK_SECONDS
        await self._add(chosen.accepted)
        await self._pool.read(chosen.accepted)

    async def run(self) -> None:
        """Follow the assignment file, where there is one, and the venue's listing, until cancelled."""
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
        elif self.refused and self._world.monotonic() >= self._look_again_due:
            await self._apply(found)

    async def _adopt_gaps(self) -> None:
        """Close gap records of a process that ran on beside this one."""
        if not self._adopt_due or self._world.monotonic() < self._adopt_due[0]:
            return
        recovered = await asyncio.to_thread(recover_state, self._settings, self._world.read_topic)
        del self._adopt_due[0]
        for symbol, flow in self._pipeline.flows.items():
            self._pipeline.adopt_gaps(flow, list(recovered.gaps[symbol].values()))

    async def _apply(self, found: Assignment) -> None:
        self._look_again_due = self._world.monotonic() + RECHECK_SECONDS
        listed = await self._rest.symbols() if self._settings.validate_on_start else None
        flows = self._pipeline.flows
        # What is read stays so while it is asked for: a halt ends, and nobody else would take the symbol up again.
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
        """Make flows for `symbols`, each going on where Kafka remembers that it stopped."""
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
