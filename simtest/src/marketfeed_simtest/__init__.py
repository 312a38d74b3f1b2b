"""Sessions of the real worker in virtual time: models of the venue and of Kafka, faults from a seed, an oracle.

    clock          one clock for the event loop and for the module time; no real time passes
    kafka_log      topics in memory, and their state after a crash
    kafka_producer the worker's Kafka producer
    venue_model    the simulator's own core behind sockets and an HTTP session in memory
    network        the connection between: order, latency, buffers
    faults         faults of the process and Kafka; faults of the venue are the simulator's own
    plan           the session of a seed: drawn, printed, shrunk
    life           a worker's processes, one after the other or side by side
    oracle         invariants, checked at each write and at the end
    session        one run of a plan

For developers only: no image holds this package.
"""
