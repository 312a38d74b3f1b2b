"""What the worker is given to do: by its settings, or by an assignment file that changes while it runs.

That is the symbols that it reads, and with how many others it shares the venue's budgets.

    file changes ─▶ is it whole? ─▶ does the venue trade them? ─▶ resume each new one from Kafka's memory
                 ─▶ subscribe, then let go of what went ─▶ report the file's hash once the venue has confirmed all

The file is read again every second and not watched by events: a mounted ConfigMap is swapped by links, and not every
file system tells of that.
"""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from marketfeed_chassis import logs
from marketfeed_chassis.errors import SettingsError
from marketfeed_wire.assignment import Assignment, decode_assignment
from marketfeed_wire.codec import DecodeError
from marketfeed_workers import startup
from marketfeed_workers.budget import AttemptBudget, WeightBudget
from marketfeed_workers.errors import VenueError
from marketfeed_workers.fleet import Fleet
from marketfeed_workers.ledger import read_memory
from marketfeed_workers.pipeline import Pipeline
from marketfeed_workers.settings import WorkerSettings
from marketfeed_workers.validate import validate
from marketfeed_workers.venues.venue import VenueRest

log = logs.get(__name__)

LOOK_SECONDS: Final = 1.0


def read_assignment(file: str) -> Assignment:
    """The assignment in `file`.

    Raises:
        SettingsError: it cannot be read, or is not what the operator writes.
    """
    try:
        return decode_assignment(Path(file).read_bytes())
    except OSError as error:
        raise SettingsError(f"SYMBOLS_FILE={file!r} cannot be read: {error.strerror}") from None
    except DecodeError as error:
        raise SettingsError(f"SYMBOLS_FILE={file!r} is no assignment file: {error}") from None


class Roster:
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
        fleet: Fleet,
        budgets: Sequence[WeightBudget | AttemptBudget],
    ) -> None:
        self.refused: dict[str, str] = {}
        self.applied = ""
        self._settings = settings
        self._rest = rest
        self._pipeline = pipeline
        self._fleet = fleet
        self._budgets = budgets
        self._wanted: Assignment | None = None
        self._problem = ""

    async def begin(self) -> None:
        """Settle what is read at first.

        Raises:
            SettingsError, StartupError: there is nothing to read, or the venue or Kafka could not be asked.
        """
        settings = self._settings
        if settings.symbols_file:
            self._wanted = read_assignment(settings.symbols_file)
            self._share_budgets(self._wanted)
            chosen = await startup.choose_symbols(settings, self._rest, self._wanted.symbols)
        else:
            chosen = await startup.choose_symbols(settings, self._rest, settings.binance_symbols)
            if not chosen.accepted:
                raise startup.nothing_to_read(chosen)
        self.refused = chosen.refused
        await self._add(chosen.accepted)
        await self._fleet.read(chosen.accepted)

    async def run(self) -> None:
        """Follow the assignment file until cancelled; nothing to do without one."""
        while self._settings.symbols_file:
            if self._wanted is not None and self._fleet.covers(list(self._pipeline.flows)):
                self.applied = self._wanted.hash
            try:
                found = read_assignment(self._settings.symbols_file)
                self._share_budgets(found)
                if self._wanted is None or found.hash != self._wanted.hash:
                    await self._change(found)
                self._problem = ""
            except (SettingsError, VenueError) as error:
                self._say_once(str(error))
            await asyncio.sleep(LOOK_SECONDS)

    async def _change(self, found: Assignment) -> None:
        self.applied = ""
        listed = await self._rest.symbols() if self._settings.validate_on_start else None
        chosen = validate(found.symbols, listed)
        added = [symbol for symbol in chosen.accepted if symbol not in self._pipeline.flows]
        removed = [symbol for symbol in self._pipeline.flows if symbol not in chosen.accepted]
        log.info("symbols change", added=len(added), removed=len(removed), assignment=found.hash)
        await self._add(added)
        await self._fleet.read(chosen.accepted)
        for symbol in removed:
            self._pipeline.remove_symbol(symbol)
        self.refused = chosen.refused
        self._wanted = found

    def _share_budgets(self, found: Assignment) -> None:
        for budget in self._budgets:
            budget.share = found.budget_share or self._settings.venue_budget_share

    async def _add(self, symbols: list[str]) -> None:
        """Make flows for `symbols`, each going on where Kafka remembers that it stopped."""
        if not symbols:
            return
        memory = await asyncio.to_thread(read_memory, self._settings)
        for symbol in symbols:
            flow = self._pipeline.add_symbol(symbol)
            await startup.resume(self._settings, memory, flow, self._rest)

    def _say_once(self, problem: str) -> None:
        if problem != self._problem:
            self._problem = problem
            log.error("the assignment could not be followed; reading on as before", reason=problem)
