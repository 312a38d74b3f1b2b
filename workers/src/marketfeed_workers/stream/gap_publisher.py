"""Publishing of gap records: what is acknowledged of a gap, and when the checkpoint may pass it."""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import count

from msgspec.structs import replace

from marketfeed_service import logs
from marketfeed_service.id_ranges import IdRange, merged, within
from marketfeed_wire import (
    Gap,
    encode_gap,
    gap_key,
)
from marketfeed_workers.counters import Counters
from marketfeed_workers.kafka.delivery_report import Record
from marketfeed_workers.kafka.publisher import Publisher
from marketfeed_workers.stream.gaps import FROM_STREAM, SERIES_ENDED, GapEntry, restore
from marketfeed_workers.stream.symbol_flow import SymbolFlow

log = logs.get(__name__)


class GapPublisher:
    """Publishes the gaps of all symbols.

    Args:
        venue: name of the venue.
        flows: the assigned symbols.
        publisher: publisher of the records.
        counters: counters of the worker.
        now_us: wall clock.
        on_gap: called with a symbol with a new gap.
    """

    def __init__(
        self,
        venue: str,
        flows: dict[str, SymbolFlow],
        publisher: Publisher,
        counters: Counters,
        now_us: Callable[[], int],
        on_gap: Callable[[str], None],
    ) -> None:
        self.flows = flows
        self.on_gap = on_gap
        self._venue = venue
        self._publisher = publisher
        self._counters = counters
        self._now_us = now_us
        self._numbers = count()
        self._updates: list[SymbolFlow] = []
        self._unacknowledged: dict[str, dict[int, int]] = {}
        """Symbol -> number of an unacknowledged first record of a gap -> first id of the gap."""

    @property
    def has_updates(self) -> bool:
        """Whether updates of gaps are scheduled."""
        return bool(self._updates)

    def run_updates(self) -> None:
        """Publish the gaps whose update is scheduled."""
        flows, self._updates[:] = list(self._updates), []
        for flow in flows:
            flow.gap_update_scheduled = False
            self.publish(flow)

    def end_series(self, flow: SymbolFlow) -> None:
        """Publish the final records of a series that ends: its missing ids stay unresolved."""
        for entry in flow.gaps:
            if entry.state == "unresolved":
                entry.proof = SERIES_ENDED
                self.publish_one(flow, entry)
        self._unacknowledged[flow.symbol] = {}  # the checkpoint of the new series does not wait for these

    def publish(self, flow: SymbolFlow, *, with_partial: bool = False) -> None:
        """Count new gaps and start their backfill; count, log and publish every gap whose state changed.

        A record contains only acknowledged facts: published ids of a gap count as missing until they are acknowledged,
        because ids that are not missing in the record are never backfilled.

        Args:
            flow: the symbol.
            with_partial: whether to publish other changes as well; those of a removed symbol are always published.
        """
        if flow.new_gaps:
            self._counters.gaps_opened += flow.new_gaps
            flow.new_gaps = 0
            self.on_gap(flow.symbol)
        if not flow.gaps:
            return
        for entry in flow.update_gaps():
            outcome = "reordered" if _is_reordered(entry) else entry.state
            self._counters.gap_outcomes[outcome] += 1
        with_partial = with_partial or self.flows.get(flow.symbol) is not flow
        for entry in flow.gaps:
            is_due = entry.is_outdated if with_partial else entry.is_due
            if is_due and not entry.in_flight and not _is_reordered(entry):
                self.publish_one(flow, entry)
        flow.remove_gaps(is_done=_is_done)

    def publish_changes(self) -> None:
        """Publish changes of gaps that do not change their state, such as a part that was filled."""
        for flow in self.flows.values():
            if flow.gaps:
                self.publish(flow, with_partial=True)

    def adopt(self, flow: SymbolFlow, gaps: Sequence[Gap]) -> None:
        """Close the gap records of a process that ran beside this one and has ended; `gaps`: all of the symbol."""
        _adopt(flow, gaps)
        self.publish(flow, with_partial=True)

    def publish_one(self, flow: SymbolFlow, entry: GapEntry) -> None:
        """Publish a record of a gap."""
        now_us = self._now_us()
        message = entry.message(self._venue, flow.symbol, now_us, self._publisher.max_ranges)
        if flow.id_series:
            message = replace(message, id_series=flow.id_series)
        if entry.is_due:
            write = log.error if entry.state == "unresolved" else log.warning
            write(
                f"gap {entry.state}",
                symbol=flow.symbol,
                first_id=entry.ids.first,
                last_id=entry.ids.last,
                count=entry.ids.size,
                proof=entry.proof,
            )
        unacknowledged, number = self._unacknowledged.setdefault(flow.symbol, {}), next(self._numbers)
        if entry.published is None:
            # Until the first record is acknowledged the gap is lost by a crash: the checkpoint must not pass it.
            unacknowledged[number] = entry.ids.first
        entry.has_record, entry.record_time_us = True, message.updated_time_us
        entry.published, entry.in_flight = entry.content, True

        def acknowledged() -> None:
            entry.in_flight = False
            unacknowledged.pop(number, None)
            if not _is_done(entry):
                self._schedule_gap_update(flow)

        record: Record = {"value": encode_gap(message), "key": gap_key(message)}
        self._publisher.publish(self._counters.gaps, [record], now_us, {}, acknowledged)

    def on_acknowledged(self, gap_flows: dict[str, SymbolFlow], batch: int) -> Callable[[], None] | None:
        """Return the callback for the acknowledgement of trades in gaps; None without such trades."""
        return (
            partial(self._on_gap_trades_acknowledged, list(gap_flows.values()), batch) if gap_flows else None
        )

    def _on_gap_trades_acknowledged(self, flows: list[SymbolFlow], batch: int) -> None:
        for flow in flows:
            flow.unacknowledged.pop(batch, None)
            self._schedule_gap_update(flow)

    def _schedule_gap_update(self, flow: SymbolFlow) -> None:
        """Schedule an update of the gaps outside the delivery callback, once for any number of acknowledgements."""
        if not flow.gap_update_scheduled:
            flow.gap_update_scheduled = True
            self._updates.append(flow)

    def checkpoint(self, symbol: str, acknowledged_id: int) -> int:
        """Return the id for a checkpoint: the acknowledged one, or the id before the first unrecorded gap."""
        unacknowledged = self._unacknowledged.get(symbol, {}).values()
        return min([acknowledged_id, *(first_id - 1 for first_id in unacknowledged)])


def _adopt(flow: SymbolFlow, gaps: Sequence[Gap]) -> None:
    """Adopt the newest records of gaps that another process wrote after the start of this one.

    A gap that this process has met with other bounds has a record of its own; without this the other one would
    stay unresolved until the next start.
    """
    absent = merged(IdRange(*each) for gap in gaps for each in gap.absent)
    own = {entry.ids.first: entry for entry in flow.gaps}
    for gap in gaps:
        if gap.id_series != flow.id_series or not gap.missing:
            continue
        entry = own.get(gap.first_id)
        if entry is None:
            entry = restore(gap)
            entry.absent = within(absent, entry.ids)
            flow.gaps.append(entry)
            flow.known_to = max(flow.known_to, entry.ids.last)
        elif entry.record_time_us < gap.updated_time_us:
            entry.record_time_us, entry.published = gap.updated_time_us, None


def _is_reordered(entry: GapEntry) -> bool:
    """Return whether the trades of a gap were only out of order, before any record of it."""
    return entry.is_settled and entry.proof == FROM_STREAM and not entry.has_record


def _is_done(entry: GapEntry) -> bool:
    return entry.is_settled and (_is_reordered(entry) or not entry.is_due)
