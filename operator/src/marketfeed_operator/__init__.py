"""The operator: what a `MarketFeed` declares becomes sharded Deployments and StatefulSets, and stays so.

The way of a reconciliation: `api` (parse) → `observe` (all reads) → `decide` and `desired` (pure) → `apply` →
`status`. `engine/` brings keys to it, `handlers` is the only place that knows kopf.
"""
