"""Sessions of the real worker in virtual time: models of the venue and of Kafka, faults from a seed, an oracle.

    clock          one clock for the event loop and for the module time; nothing waits for real
    kafka_log      topics in memory, and what a crash leaves of them
    kafka_producer the client that the worker produces with
    venue_model    the simulator's own core behind sockets and an HTTP session in memory
    network        the connection between: order, latency, buffers
    faults         what strikes the process and Kafka; what strikes the venue are the simulator's own faults
    plan           what a seed stands for: drawn, printed, made smaller
    life           a worker's processes, one after the other or side by side
    oracle         what has to be true, at each write and at the end
    session        all of that, once

For developers only: no image holds this package.
"""
