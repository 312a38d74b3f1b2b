{{- /* Metadata of the Kafka cluster's objects: list context, name. */ -}}
{{- define "marketfeed.kafkaMetadata" -}}
{{- $root := index . 0 -}}
{{- include "marketfeed.metadata" (list $root "kafka" (index . 1)) }}
  strimzi.io/cluster: {{ $root.Values.kafka.name }}
{{- if $root.Values.kafka.keep }}
annotations:
  helm.sh/resource-policy: keep
{{- end }}
{{- end -}}

{{- /* Listener of the release's own clients. */ -}}
{{- define "marketfeed.kafkaListener" -}}
{{- if eq .Values.kafka.authentication "none" -}}
name: plain
port: 9092
type: internal
tls: false
{{- else -}}
name: tls
port: 9093
type: internal
tls: true
authentication:
  type: {{ include "marketfeed.kafkaAuthentication" . }}
{{- end }}
{{- end -}}

{{- define "marketfeed.kafkaAuthentication" -}}
{{- eq .Values.kafka.authentication "scram" | ternary "scram-sha-512" "tls" -}}
{{- end -}}

{{- /* Name of a role's KafkaUser and Secret: list context, role. */ -}}
{{- define "marketfeed.kafkaUser" -}}
{{- printf "%s-%s" (include "marketfeed.fullname" (index . 0)) (index . 1) -}}
{{- end -}}

{{- /* Name of a KafkaTopic; must equal the name that the operator derives. */ -}}
{{- define "marketfeed.topicResource" -}}
{{- if and (regexMatch "^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$" .) (not (contains ".." .)) -}}
{{- . -}}
{{- else -}}
{{- $slug := regexReplaceAll "[^a-z0-9]+" (lower .) "-" | trimAll "-" | trunc 200 -}}
{{- printf "%s-%s" $slug (toJson . | sha256sum | trunc 8) -}}
{{- end -}}
{{- end -}}

{{- /* Number of nodes with a role: list context, role. */ -}}
{{- define "marketfeed.kafkaNodes" -}}
{{- $count := 0 -}}
{{- $role := index . 1 -}}
{{- range (index . 0).Values.kafka.nodePools -}}
{{- if has $role .roles -}}{{- $count = add $count .replicas -}}{{- end -}}
{{- end -}}
{{- $count -}}
{{- end -}}
