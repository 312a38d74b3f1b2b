"""Operator: reconciles each `MarketFeed` into sharded Deployments and StatefulSets.

A reconciliation runs `api` (parse) → `observe` (all reads) → `plan` and `desired` (pure) → `apply` → `decide` (pure)
→ `status_writer`. `engine/` feeds the work queue. Only `handlers` depends on kopf.
"""
