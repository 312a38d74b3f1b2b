"""Former defects of the worker, introduced again."""

from typing import Final

from marketfeed_simtest.mutants import Mutant

FORMER_MUTANTS: Final[tuple[Mutant, ...]] = (
    Mutant(
        "A3: a duplicate is detected by its id alone",
        "stream/pipeline.py",
        "            if not self._trades.is_unproven(flow, trade):\n                return\n",
        "            if not self._trades.is_unproven(flow, trade) or True:\n                return\n",
        seed=27,
    ),
    Mutant(
        "A3: quotes below the newest are skipped without limit",
        "stream/quote_publisher.py",
        "                self._hold_low_quote(flow, quote)\n",
        "",
        seed=27,
    ),
    Mutant(
        "A4: liveness is judged by symbol and not by stream",
        "stall_detector.py",
        'return flow.trades if stream.kind == "trade" else flow.quotes',
        "return flow.trades + flow.quotes",
        seed=415,
    ),
    Mutant(
        "A5: an invalid row discards its page",
        "venues/binance_spot/rows.py",
        "            raws = [bytes(raw) for raw in _raws.decode(body)]\n",
        "            raise\n",
        seed=200,
    ),
    Mutant(
        "A5: one backoff for all gaps of a symbol",
        "backfill_schedule.py",
        "        self._requests = planned\n        return planned\n",
        "        latest = max((each.due for each in planned), default=now)\n"
        "        self._requests = planned = [each._replace(due=latest) for each in planned]\n"
        "        return planned\n",
        seed=10**12 + 54,
    ),
    Mutant(
        "A6: a unit is not validated",
        "stream/pipeline.py",
        "                EARLIEST_US <= time_us <= latest_us\n                and (",
        "                True\n                or (",
        seed=781,
    ),
    Mutant(
        "A6: a connection in the wrong unit is kept",
        "stall_detector.py",
        "        self._rotate_rejecting()\n",
        "",
        seed=781,
    ),
    Mutant(
        "B1: ready while Kafka does not respond",
        "status.py",
        "        if self._kafka.reason:\n",
        "        if False:\n",
        seed=20,
    ),
    Mutant(
        "B8: a proof covers the requested ids, and not the proven ones",
        "venues/binance_spot/rest.py",
        "self._fetched(query, page, page.rows, first,",
        "self._fetched(query._replace(needed=[requested]), page, page.rows, first,",
        seed=27,
    ),
    Mutant(
        "B9: a connection that is refused once is not retried",
        "connection/connection.py",
        "                await asyncio.sleep(delay)\n                continue\n",
        "                await asyncio.sleep(1e9)\n                continue\n",
        seed=98,
    ),
    Mutant(
        "B10: a late trade sets the time of the newest back",
        "stream/symbol_flow.py",
        "if self.last_trade_time_us is None or newest_us > self.last_trade_time_us:",
        "if True:",
        seed=788,
    ),
    Mutant(
        "F2: gaps are updated only while none of their trades is in flight",
        "stream/gap_publisher.py",
        "        if not flow.gaps:\n            return\n        for entry in flow.update_gaps():",
        "        if not flow.gaps or flow.unacknowledged:\n            return\n"
        "        for entry in flow.update_gaps():",
        seed=10**12 + 1,
    ),
    Mutant(
        "F2: the checkpoint waits while a backfilled trade is in flight",
        "kafka/checkpoints.py",
        "            if flow is not None and flow.id_series != id_series:\n",
        "            if flow is not None and (flow.id_series != id_series or flow.unacknowledged):\n",
        seed=10**12 + 1,
    ),
    Mutant(
        "F3: bans are measured by the wall clock",
        "worker.py",
        "WeightBudget(settings.venue_budget_share, world.monotonic)",
        "WeightBudget(settings.venue_budget_share, lambda: world.now_us() / 1e6)",
        seed=58,
    ),
    Mutant(
        "F4, F5: idle time is measured by the wall clock",
        "worker.py",
        "            world.monotonic,\n            settings.ready_quiet_seconds,\n",
        "            lambda: world.now_us() / 1e6,\n            settings.ready_quiet_seconds,\n",
        seed=58,
    ),
    Mutant(
        "F6: a stream without data makes every new connection unready for half a minute",
        "status.py",
        "        return self._streams.not_ready()\n",
        "        sessions = [each.session for each in self._pool.connections if each.session is not None]\n"
        "        newest = max((each.connected_at for each in sessions), default=0.0)\n"
        "        silent = any(not flow.quotes for flow in self._pipeline.flows.values())\n"
        "        is_early = silent and self._monotonic() - newest < 30\n"
        '        return self._streams.not_ready() or ("no first message yet" if is_early else "")\n',
        seed=2,
    ),
    Mutant(
        "F7: a symbol that is halted at the start is left out",
        "validate.py",
        "in validate(symbols, listed).refused.items() if symbol not in listed\n",
        "in validate(symbols, listed).refused.items()\n",
        seed=299,
    ),
    Mutant(
        "F1: changes of a gap's parts are not published",
        "stream/gap_publisher.py",
        "is_due = entry.is_outdated if with_partial else entry.is_due",
        "is_due = entry.is_due",
        seed=95,
    ),
)
