{{- define "marketfeed.databaseName" -}}
{{- .Values.cockroachdb.name | default (printf "%s-db" (include "marketfeed.fullname" .)) -}}
{{- end -}}

{{- /* Metadata of the database's objects: list context, name. */ -}}
{{- define "marketfeed.databaseMetadata" -}}
{{- $root := index . 0 -}}
{{- include "marketfeed.metadata" (list $root "database" (index . 1)) }}
{{- if $root.Values.cockroachdb.keep }}
annotations:
  helm.sh/resource-policy: keep
{{- end }}
{{- end -}}
