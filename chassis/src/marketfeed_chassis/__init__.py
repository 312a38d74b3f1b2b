"""What every marketfeed service has alike: settings from the environment, logs, health endpoints, Kafka access.

A leaf package without a word about market data. Services stand on it so that a setting is spelled, a log line
looks and a probe answers the same way in each of them.
"""
