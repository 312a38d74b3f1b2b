{{- define "marketfeed.entityOperator" -}}
{{- with .Values.kafka -}}
topicOperator:
  resources:
    {{- toYaml .entityOperator.resources | nindent 4 }}
userOperator:
  resources:
    {{- toYaml .entityOperator.resources | nindent 4 }}
{{- if not .keep }}
template:
  topicOperatorContainer:
    env:
      # Topics are deleted with the cluster. Finalizers would block: the topic operator is deleted before them.
      - {name: STRIMZI_USE_FINALIZERS, value: "false"}
{{- end }}
{{- end }}
{{- end -}}

{{- define "marketfeed.topicsRegex" -}}
{{- $names := list -}}
{{- with .Values.kafka.topics -}}
{{- range (list .trades .bookTicker .progress .gaps .rejected) -}}
{{- $names = append $names (regexQuoteMeta .name) -}}
{{- end -}}
{{- end -}}
{{- join "|" $names -}}
{{- end -}}
