{{- define "marketfeed.checkOperator" -}}
{{- with .Values.operator -}}
{{- if and .watchNamespaces (ne $.Values.rbac.scope "namespaced") }}
{{- fail "operator.watchNamespaces is set and rbac.scope is cluster: a cluster-scoped operator serves every namespace. Set rbac.scope=namespaced, or leave operator.watchNamespaces empty" }}
{{- end }}
{{- if and (gt (int .replicas) 1) (not .settings.leaderElection) }}
{{- fail (printf "operator.replicas is %d and operator.settings.leaderElection is false: every replica would reconcile at the same time. Set operator.replicas=1, or enable leader election" (int .replicas)) }}
{{- end }}
{{- if gt (mulf .settings.leaseRetrySeconds 3) (float64 .settings.leaseSeconds) }}
{{- fail (printf "operator.settings.leaseRetrySeconds=%v must be at most a third of leaseSeconds=%v: one slow response would cost the leader its lease" .settings.leaseRetrySeconds .settings.leaseSeconds) }}
{{- end }}
{{- end }}
{{- if and .Values.rbac.create (not .Values.serviceAccount.create) (not .Values.serviceAccount.name) }}
{{- fail "serviceAccount.create is false and serviceAccount.name is empty: the operator's roles would be bound to the ServiceAccount default, which every pod of the namespace uses. Set serviceAccount.name, or rbac.create=false" }}
{{- end }}
{{- end -}}

{{- define "marketfeed.checkKafka" -}}
{{- if .Values.kafka.enabled -}}
{{- with .Values.kafka -}}
{{- $brokers := include "marketfeed.kafkaNodes" (list $ "broker") | int -}}
{{- $copies := int .replicationFactor -}}
{{- if lt (include "marketfeed.kafkaNodes" (list $ "controller") | int) 1 }}
{{- fail "no pool of kafka.nodePools has the role controller: Kafka needs at least one" }}
{{- end }}
{{- if gt $copies $brokers }}
{{- fail (printf "kafka.replicationFactor is %d and kafka.nodePools has %d brokers: each replica needs its own broker. Lower kafka.replicationFactor, or add brokers" $copies $brokers) }}
{{- end }}
{{- if gt (int .minInsyncReplicas) $copies }}
{{- fail (printf "kafka.minInsyncReplicas is %d and kafka.replicationFactor %d: no write could be acknowledged" (int .minInsyncReplicas) $copies) }}
{{- end }}
{{- if and (gt $copies 1) (eq (int .minInsyncReplicas) $copies) }}
{{- fail (printf "kafka.minInsyncReplicas and kafka.replicationFactor are both %d: writes would stop while one broker restarts. Set kafka.minInsyncReplicas=%d" $copies (sub $copies 1)) }}
{{- end }}
{{- $names := list .topics.trades.name .topics.bookTicker.name .topics.progress.name .topics.gaps.name .topics.rejected.name }}
{{- if lt (len (uniq $names)) 5 }}
{{- fail (printf "the names of kafka.topics must differ, each topic holds one kind of message: %s" (join ", " $names)) }}
{{- end }}
{{- end }}
{{- end }}
{{- end -}}

{{- define "marketfeed.checkDatabase" -}}
{{- if .Values.cockroachdb.enabled -}}
{{- with .Values.cockroachdb -}}
{{- if eq (int .nodes) 2 }}
{{- fail "cockroachdb.nodes is 2: without one of them the other has no quorum. Set 1, or 3 or more" }}
{{- end }}
{{- if and .tls.certManager.enabled (not .tls.enabled) }}
{{- fail "cockroachdb.tls.certManager.enabled needs cockroachdb.tls.enabled: without TLS there are no certificates" }}
{{- end }}
{{- if and .postInitSqlSecret.name (not .tls.enabled) }}
{{- fail "cockroachdb.postInitSqlSecret needs cockroachdb.tls.enabled: the CockroachDB operator runs it over TLS only" }}
{{- end }}
{{- end }}
{{- end }}
{{- end -}}

{{- define "marketfeed.checkFeed" -}}
{{- if .Values.feed.enabled -}}
{{- $kafka := .Values.feed.spec.kafka | default dict -}}
{{- $storage := .Values.feed.spec.storage | default dict -}}
{{- if and .Values.kafka.enabled $kafka.bootstrapServers }}
{{- fail "kafka.enabled and feed.spec.kafka.bootstrapServers name two Kafka clusters: set kafka.enabled=false, or remove feed.spec.kafka.bootstrapServers" }}
{{- end }}
{{- if not (or .Values.kafka.enabled $kafka.bootstrapServers $kafka.cluster) }}
{{- fail "feed.enabled needs a Kafka cluster: set feed.spec.kafka.bootstrapServers=host:port, feed.spec.kafka.cluster.name of a Strimzi Kafka resource, or kafka.enabled=true" }}
{{- end }}
{{- if and .Values.kafka.enabled .Values.kafka.topics.enabled $kafka.manageTopics }}
{{- fail "kafka.topics.enabled and feed.spec.kafka.manageTopics both declare the topics: set one of them to false" }}
{{- end }}
{{- if and .Values.cockroachdb.enabled $storage.engine (ne $storage.engine "cockroachdb") }}
{{- fail (printf "cockroachdb.enabled and feed.spec.storage.engine=%s name two databases: set cockroachdb.enabled=false, or remove feed.spec.storage" $storage.engine) }}
{{- end }}
{{- end }}
{{- end -}}
