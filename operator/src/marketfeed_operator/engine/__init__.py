"""What brings feeds to their reconciliation: queue, leader election, audit, canary, reports, metrics."""
