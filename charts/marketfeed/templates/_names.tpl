{{- define "marketfeed.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{- /* At most 40 characters, so that a suffix fits into the limit of 63. */ -}}
{{- define "marketfeed.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- $name := include "marketfeed.name" . -}}
{{- (contains $name .Release.Name | ternary .Release.Name (printf "%s-%s" .Release.Name $name)) | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "marketfeed.operatorName" -}}
{{- printf "%s-operator" (include "marketfeed.fullname" .) -}}
{{- end -}}

{{- define "marketfeed.serviceAccountName" -}}
{{- .Values.serviceAccount.name | default (.Values.serviceAccount.create | ternary (include "marketfeed.operatorName" .) "default") -}}
{{- end -}}

{{- /* Selector labels of a component's pods: list context, component. */ -}}
{{- define "marketfeed.selector" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: {{ include "marketfeed.name" $root }}
app.kubernetes.io/instance: {{ $root.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end -}}

{{- /* Labels of an object: list context, component. */ -}}
{{- define "marketfeed.labels" -}}
{{- $root := index . 0 -}}
{{- with $root.Values.commonLabels }}
{{- toYaml . }}
{{ end -}}
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_" }}
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
app.kubernetes.io/part-of: marketfeed
{{ include "marketfeed.selector" . }}
{{- end -}}

{{- /* Name, namespace and labels of an object: list context, component, name. */ -}}
{{- define "marketfeed.metadata" -}}
{{- $root := index . 0 -}}
name: {{ index . 2 }}
namespace: {{ $root.Release.Namespace }}
labels:
  {{- include "marketfeed.labels" . | nindent 2 }}
{{- end -}}

{{- /* Full image reference: list context, key of .Values.image. */ -}}
{{- define "marketfeed.image" -}}
{{- $root := index . 0 -}}
{{- $all := $root.Values.image -}}
{{- $one := index $all (index . 1) -}}
{{- with $all.registry }}{{ trimSuffix "/" . }}/{{ end -}}
{{- $one.repository -}}
{{- if $one.digest }}@{{ $one.digest }}{{ else }}:{{ $one.tag | default $all.tag | default $root.Chart.AppVersion }}{{ end -}}
{{- end -}}
