"""Common parts of every marketfeed service: settings from the environment, logs, health endpoints, Kafka access.

A leaf package without market data code: settings, log lines and probes are the same in each service.
"""
