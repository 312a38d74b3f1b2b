{{- /* Metadata of what belongs to the Kafka cluster: list context, name. */ -}}
{{- define "marketfeed.kafkaMetadata" -}}
{{- $root := index . 0 -}}
{{- include "marketfeed.metadata" (list $root "kafka" (index . 1)) }}
  strimzi.io/cluster: {{ $root.Values.kafka.name }}
{{- if $root.Values.kafka.keep }}
annotations:
  helm.sh/resource-policy: keep
{{- end }}
{{- end -}}

{{- /* The listener that the release's own clients use. */ -}}
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

{{- /* Name of the KafkaUser, and of its Secret, of a role: list context, role. */ -}}
{{- define "marketfeed.kafkaUser" -}}
{{- printf "%s-%s" (include "marketfeed.fullname" (index . 0)) (index . 1) -}}
{{- end -}}

{{- /* Name of a topic's resource, which is the one that the operator gives it as well. */ -}}
{{- define "marketfeed.topicResource" -}}
{{- if and (regexMatch "^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$" .) (not (contains ".." .)) -}}
{{- . -}}
{{- else -}}
{{- $slug := regexReplaceAll "[^a-z0-9]+" (lower .) "-" | trimAll "-" | trunc 200 -}}
{{- printf "%s-%s" $slug (toJson . | sha256sum | trunc 8) -}}
{{- end -}}
{{- end -}}

{{- /* How many nodes have a role: list context, role. */ -}}
{{- define "marketfeed.kafkaNodes" -}}
{{- $count := 0 -}}
{{- $role := index . 1 -}}
{{- range (index . 0).Values.kafka.nodePools -}}
{{- if has $role .roles -}}{{- $count = add $count .replicas -}}{{- end -}}
{{- end -}}
{{- $count -}}
{{- end -}}
