{{- /* "true" when monitors are enabled or, with auto, the cluster has the PodMonitor CRD. */ -}}
{{- define "marketfeed.monitors" -}}
{{- if eq (toString .Values.monitors.enabled) "auto" -}}
{{- .Capabilities.APIVersions.Has "monitoring.coreos.com/v1/PodMonitor" -}}
{{- else -}}
{{- .Values.monitors.enabled -}}
{{- end -}}
{{- end -}}

{{- /* Metadata of a monitor or rule, with monitors.labels: list context, component, name. */ -}}
{{- define "marketfeed.monitorMetadata" -}}
{{- include "marketfeed.metadata" . }}
{{- with (index . 0).Values.monitors.labels }}
{{ toYaml . | indent 2 }}
{{- end }}
{{- end -}}
