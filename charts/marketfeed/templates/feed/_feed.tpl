{{- /* Helm cannot create a custom resource in the run that creates its CRD: with crds.enabled the feed is created by the second run. */ -}}
{{- define "marketfeed.feedEnabled" -}}
{{- $established := or (not .Values.crds.enabled) (.Capabilities.APIVersions.Has "marketfeed.dev/v1alpha1/MarketFeed") -}}
{{- and .Values.feed.enabled $established -}}
{{- end -}}

{{- /* Defaults of the feed's spec that follow from the release. */ -}}
{{- define "marketfeed.feedDefaults" -}}
{{- if .Values.kafka.enabled }}
kafka:
  {{- include "marketfeed.feedKafka" . | nindent 2 }}
{{- end }}
{{- if .Values.cockroachdb.enabled }}
storage:
  engine: cockroachdb
  dsnSecretName: {{ .Values.feed.databaseSecretName }}
{{- else if .Values.feed.spec.storage }}
storage:
  dsnSecretName: {{ .Values.feed.databaseSecretName }}
{{- end }}
{{- if not .Values.feed.spec.symbolSelector }}
symbols: {{ .Values.simulator.enabled | ternary .Values.simulator.symbols (list "BTCUSDT" "ETHUSDT" "SOLUSDT" "ADAUSDT" "XRPUSDT" "DOGEUSDT" "LTCUSDT" "AVAXUSDT" "LINKUSDT" "BNBUSDT") | toJson }}
{{- end }}
{{- if .Values.simulator.enabled }}
endpoints:
  websocket: ws://{{ include "marketfeed.simulatorName" . }}:{{ .Values.simulator.port }}
  rest: http://{{ include "marketfeed.simulatorName" . }}:{{ .Values.simulator.port }}
{{- end }}
monitoring:
  podMonitor: {{ ne (toString .Values.monitors.enabled) "false" }}
  {{- with .Values.monitors.labels }}
  labels:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- with .Values.image.pullSecrets }}
template:
  imagePullSecrets:
    {{- toYaml . | nindent 4 }}
{{- end }}
{{- end -}}

{{- define "marketfeed.feedKafka" -}}
cluster:
  name: {{ .Values.kafka.name }}
manageTopics: {{ not .Values.kafka.topics.enabled }}
topics:
  {{- range $key, $topic := omit .Values.kafka.topics "enabled" }}
  {{ $key }}:
    {{- toYaml $topic | nindent 4 }}
    replicas: {{ $.Values.kafka.replicationFactor }}
  {{- end }}
{{- if and .Values.kafka.users.enabled (ne .Values.kafka.authentication "none") }}
{{- $user := include "marketfeed.kafkaUser" (list . "feed") }}
credentials:
  tls:
    caSecretName: {{ .Values.kafka.name }}-cluster-ca-cert
    {{- if eq .Values.kafka.authentication "tls" }}
    clientSecretName: {{ $user }}
    {{- end }}
  {{- if eq .Values.kafka.authentication "scram" }}
  sasl:
    mechanism: SCRAM-SHA-512
    username: {{ $user }}
    secretName: {{ $user }}
  {{- end }}
{{- end }}
{{- end -}}
