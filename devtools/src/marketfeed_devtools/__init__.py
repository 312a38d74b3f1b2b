"""Shared tools of tests, benchmarks and scripts: the cache and builds into it, waiting, ports, skipping of tests.

No service and no image imports this package, and it imports none of the project's packages (an import contract).
"""
