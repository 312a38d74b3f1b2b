{{- define "marketfeed.databaseName" -}}
{{- .Values.cockroachdb.name | default (printf "%s-db" (include "marketfeed.fullname" .)) -}}
{{- end -}}
