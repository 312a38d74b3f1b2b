{{- /* What each role may do. Describe goes with Read and Write, and is named where neither is given. */ -}}

{{- /* Workers write every topic, and at their start read the two that say where they had got to. */ -}}
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
# The group that their client asks for and never joins.
- resource: {type: group, name: marketfeed-worker-start}
  operations: [Describe]
{{- end -}}

{{- /* Consumers read what is stored, in their groups. */ -}}
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

{{- /* The one credential of a MarketFeed is used by its workers and by its consumers. */ -}}
{{- define "marketfeed.acls.feed" -}}
{{- include "marketfeed.acls.worker" . }}
{{- include "marketfeed.acls.consumer" . }}
{{- end -}}

{{- /* People: look at everything, change and empty our topics, reset our groups; never read other topics. */ -}}
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
