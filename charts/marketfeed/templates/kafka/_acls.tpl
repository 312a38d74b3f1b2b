{{- /* ACLs per role. Read and Write imply Describe, which is listed only without them. */ -}}

{{- /* Workers write all topics, and read checkpoints and gaps at startup. */ -}}
{{- define "marketfeed.acls.worker" -}}
{{- with .Values.kafka.topics -}}
{{- range (list .trades .bookTicker .rejected) }}
- resource: {type: topic, name: {{ .name }}}
  operations: [Write]
{{- end }}
{{- range (list .progress .gaps) }}
- resource: {type: topic, name: {{ .name }}}
  operations: [Read, Write]
{{- end }}
{{- end }}
# Group that the workers' client describes and never joins.
- resource: {type: group, name: marketfeed-worker-start}
  operations: [Describe]
{{- end -}}

{{- /* Consumers read the topics that they store, in their groups. */ -}}
{{- define "marketfeed.acls.consumer" -}}
{{- with .Values.kafka.topics -}}
{{- range (list .trades .bookTicker .gaps .rejected) }}
- resource: {type: topic, name: {{ .name }}}
  operations: [Read]
{{- end }}
{{- end }}
- resource: {type: group, name: {{ .Values.kafka.users.groupPrefix }}, patternType: prefix}
  operations: [Read]
{{- end -}}

{{- /* A MarketFeed has one credential for its workers and consumers. */ -}}
{{- define "marketfeed.acls.feed" -}}
{{- include "marketfeed.acls.worker" . }}
{{- include "marketfeed.acls.consumer" . }}
{{- end -}}

{{- /* Administrators: describe everything, alter and truncate our topics, reset our groups; no access to the data of other topics. */ -}}
{{- define "marketfeed.acls.admin" -}}
- resource: {type: cluster}
  operations: [Describe, DescribeConfigs]
{{- with .Values.kafka.topics }}
{{- range (list .trades .bookTicker .progress .gaps .rejected) }}
- resource: {type: topic, name: {{ .name }}}
  operations: [Read, Create, Delete, Alter, DescribeConfigs, AlterConfigs]
{{- end }}
{{- end }}
- resource: {type: group, name: {{ .Values.kafka.users.groupPrefix }}, patternType: prefix}
  operations: [Read, Delete]
{{- end -}}
