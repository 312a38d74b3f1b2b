#!/bin/bash
# Starts a server: its properties file, then --override key=value where the server takes it.
export KAFKA_HEAP_OPTS=${KAFKA_HEAP_OPTS:--Xmx512M} KAFKA_JIT_LEVEL=4
export KAFKA_LOG4J_OPTS=${KAFKA_LOG4J_OPTS:-"-Dlog4j2.configurationFile=/opt/kafka/config/log4j2.yaml -Dlog4j.configuration=file:/opt/kafka/config/log4j.properties"}
exec /opt/kafka/bin/kafka-run-class.sh kafka.Kafka "$@"
