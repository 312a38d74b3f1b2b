"""Journey 5: faults of the venue. Status, metrics and alerts report them, and the data is complete afterwards."""

import time
from collections.abc import Iterable

from e2e_kube import until
from e2e_system import NAMESPACE, VENUE, System, conditions

pytest_plugins = ["e2e_fixtures"]

SYMBOL = "GONEUSDT"


def test_cut(system: System) -> None:
    """Every connection is reset and messages sent meanwhile are lost."""
    before = _total(system, "vendor_fetch_failure_total")
    begun = time.monotonic()
    system.fault("cut", reset=True, lose_frames=500)
    until("failures are counted", lambda: _total(system, "vendor_fetch_failure_total") > before, seconds=60)
    system.trades_flow()
    system.recovered("data flows", begun)
    system.compare()
    assert _backfilled(system), "500 frames were lost, and nothing was backfilled"


def test_stall(system: System) -> None:
    """The connection stays open and delivers nothing."""
    begun = time.monotonic()
    system.fault("stall", seconds=45)
    system.trades_flow(seconds=240)
    system.recovered("data flows", begun)
    system.compare()


def test_half_open(system: System) -> None:
    """The connection is dead without being closed."""
    begun = time.monotonic()
    system.fault("half_open", seconds=45)
    system.trades_flow(seconds=240)
    system.recovered("data flows", begun)
    system.compare()


def test_end_of_24_hours(system: System) -> None:
    begun = time.monotonic()
    system.fault("end_of_life", notice_seconds=20)
    system.trades_flow()
    system.recovered("data flows", begun)
    system.compare()


def test_server_shutdown(system: System) -> None:
    """Announced, so the new connection is up before the old one ends: no backfill is needed."""
    system.trades_flow()
    gaps, before = _gaps(system), _connections(system)
    begun = time.monotonic()
    system.fault("server_shutdown", close_after_seconds=60)
    until("every connection is replaced", lambda: not before & _connections(system), seconds=120)
    system.recovered("connections replaced", begun)
    system.trades_flow()
    system.compare()
    assert _gaps(system) == gaps, "an announced end must cause no gap"


def test_policy_close_1008(system: System) -> None:
    begun = time.monotonic()
    system.fault("close", code=1008, reason="e2e")
    system.trades_flow()
    system.recovered("data flows", begun)
    system.compare()


def test_429(system: System) -> None:
    """REST returns 429 while there is a gap to backfill."""
    before = _total(system, 'vendor_fetch_failure_total{reason="rate_limited"}')
    system.fault("rate_limit", seconds=30)
    system.fault("cut", lose_frames=300)
    until(
        "the rate limit is counted",
        lambda: _total(system, 'vendor_fetch_failure_total{reason="rate_limited"}') > before,
        seconds=90,
    )
    system.compare(seconds=300)
    assert not _banned(system), "a client that observes a 429 is not banned"


def test_418(system: System) -> None:
    """REST returns 418 while there is a gap to backfill: an alert fires, and it is backfilled when the ban ends."""
    system.fault("ban", seconds=60)
    system.fault("cut", lose_frames=300)
    until("an alert fires", lambda: "MarketfeedVenueRefusing" in system.alerts(), seconds=90)
    system.compare(seconds=300)


def test_451(system: System) -> None:
    """The venue returns 451 for this region: an alert fires, and workers and feed report the reason."""
    system.fault("refuse", status=451)
    system.fault("cut")
    until("an alert fires", lambda: "MarketfeedVenueRefusing" in system.alerts(), seconds=90)
    reasons = until(
        "a worker reports the reason",
        lambda: [
            each["reason"]
            for pod in system.workers()
            for each in system.status_of(pod)["connections"]
            if each["state"] == "refused"
        ],
        seconds=60,
    )
    assert any("451" in reason or "region" in reason for reason in reasons), reasons
    until(
        "the feed is not ready",
        lambda: conditions(system.feed())["Ready"]["status"] == "False",
        seconds=120,
    )
    # The runbook: resolve it with the venue, then restart the workers.
    system.clear_faults()
    begun = time.monotonic()
    for pod in system.workers():
        system.kube.run("--namespace", NAMESPACE, "delete", "pod", pod["metadata"]["name"], "--wait=false")
    system.trades_flow(seconds=240)
    system.recovered("data flows", begun)
    system.await_ready()
    system.compare(seconds=300)


def test_delisting(system: System) -> None:
    """One symbol is delisted: the others continue, its trades are complete, and the feed reports it."""
    symbols = system.feed()["spec"]["symbols"]
    system.fault("list", symbols=[SYMBOL], trade_rate=1, quote_rate=1)
    system.patch_feed({"symbols": sorted({*symbols, SYMBOL})})
    system.await_ready()
    until(f"{SYMBOL} is stored", lambda: _stored(system, [SYMBOL]) > 10, seconds=90)
    try:
        system.fault("delist", symbols=[SYMBOL])
        system.compare([*symbols, SYMBOL])
        feed = until(
            "the feed reports it",
            lambda: (
                found if SYMBOL in (found := system.feed())["status"]["symbols"].get("unknown", []) else None
            ),
            seconds=300,
        )
        assert conditions(feed)["Degraded"]["reason"] == "SymbolsUnknown"
        assert conditions(feed)["Ready"]["status"] == "True", (
            "a delisted symbol must not make the feed unready"
        )
    finally:
        system.patch_feed({"symbols": symbols})
    system.await_ready()
    assert conditions(system.feed())["Degraded"]["status"] == "False"
    system.compare(symbols)


def _total(system: System, metric: str) -> float:
    return sum(float(each["value"][1]) for each in system.prometheus(f"sum({metric})"))


def _connections(system: System) -> set[int]:
    """Return the ids of the venue's connections with subscriptions."""
    return {
        each["id"] for each in system.kube.ask("venue", VENUE, "/control/connections") if each["receiving"]
    }


def _banned(system: System) -> bool:
    return _total(system, 'increase(vendor_fetch_failure_total{reason="banned"}[3m])') > 0


def _stored(system: System, symbols: Iterable[str]) -> int:
    chosen = ", ".join(f"'{symbol}'" for symbol in symbols)
    return int(system.database.rows(f"SELECT count(*) FROM trades WHERE symbol IN ({chosen})")[0][0])  # noqa: S608


def _backfilled(system: System) -> int:
    return int(system.database.rows("SELECT count(*) FROM trades WHERE origin = 'backfill'")[0][0])


def _gaps(system: System) -> int:
    """Return the number of gaps ever detected."""
    return int(system.database.rows("SELECT count(*) FROM trade_gaps")[0][0])
