"""What tests, benchmarks and scripts have alike: the cache, what is built into it, waiting, ports, reasons to skip.

No service and no image knows this package (an import contract keeps it so), and it knows none of ours.
"""
