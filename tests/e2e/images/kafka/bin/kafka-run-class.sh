#!/bin/bash
# Runs one of Kafka's classes: KAFKA_HEAP_OPTS, KAFKA_OPTS and KAFKA_LOG4J_OPTS as Kafka's own script has them.
log4j=${KAFKA_LOG4J_OPTS:-"-Dlog4j2.configurationFile=/opt/kafka/config/tools-log4j2.yaml -Dlog4j.configuration=file:/opt/kafka/config/tools-log4j.properties"}
# shellcheck disable=SC2086 # these hold several options each
exec java ${KAFKA_HEAP_OPTS:--Xmx256M} -XX:TieredStopAtLevel=${KAFKA_JIT_LEVEL:-1} $log4j ${KAFKA_OPTS:-} \
    -cp '/opt/kafka/libs/*' "$@"
