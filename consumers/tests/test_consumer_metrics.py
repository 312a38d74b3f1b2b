"""Each declared metric is exported with a value once its event has occurred."""

from prometheus_client import CollectorRegistry

from marketfeed_consumers.admin.auditor import AuditFigures, Auditor
from marketfeed_consumers.admin.completeness import Figures, Retained
from marketfeed_consumers.metric_table import AUDITED, METRICS
from marketfeed_consumers.metrics import Metrics
from marketfeed_consumers.planning.stored_ranges import MissingRange, StoredRanges
from marketfeed_consumers.state import LATENCY_BOUNDS_US, PartitionState, State
from marketfeed_consumers.storage.writer import Writer
from marketfeed_service.histogram import LatencyHistogram

KEY = ("trades", "binance", "BTCUSDT", 0)
MISSING = MissingRange(2, 3, None, None)


def test_metrics_declared_are_those_with_values() -> None:
    state, auditor, registry = State(), Auditor("", 0, lambda: False), CollectorRegistry()
    for counts in (state.inserted, state.duplicates, state.expired, state.unverifiable):
        counts["trades"] = 1
    state.partitions["market.trades.raw", 0] = PartitionState(epoch=1, next_offset=5)
    state.newest_received_us["trades"] = 5
    state.stored_ranges[KEY] = StoredRanges(1, 1, 9, 1, 1, 0, 0, (MISSING,))
    state.latencies[KEY] = LatencyHistogram(LATENCY_BOUNDS_US)
    Metrics(registry, state, Writer(""), auditor, lambda: 10)

    def exported() -> set[str]:
        return {family.name for family in registry.collect() if family.samples}

    assert exported() == {each.name for each in METRICS} - {each.name for each in AUDITED}
    missing = {"unresolved": 2, "absent": 0, "expired": 0, "rejected": 0}
    auditor.taken = AuditFigures(
        [Figures("binance", "BTCUSDT", 7, missing, 1, 9)],
        [Retained("trades", 8, {("binance", "BTCUSDT"): 2}, 1, 30)],
    )
    assert exported() == {each.name for each in METRICS}
