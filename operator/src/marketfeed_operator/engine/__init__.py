"""Triggers of reconciliation: queue, leader election, watches, audit, pod reports; and metrics."""
