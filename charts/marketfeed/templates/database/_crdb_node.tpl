{{- /* Node template of the CrdbCluster, API v1beta1. */ -}}
{{- define "marketfeed.crdbNode" -}}
{{- with .Values.cockroachdb -}}
image: {{ .image }}
{{- if .tls.enabled }}
certificates:
  externalCertificates:
    caConfigMapName: {{ .tls.caConfigMapName }}
    nodeSecretName: {{ .tls.nodeSecretName }}
    rootSqlClientSecretName: {{ .tls.rootSecretName }}
{{- end }}
dataStore:
  volumeClaimTemplate:
    metadata: {}
    spec:
      accessModes: [ReadWriteOnce]
      volumeMode: Filesystem
      {{- with .storage.className }}
      storageClassName: {{ . }}
      {{- end }}
      resources:
        requests:
          storage: {{ .storage.size }}
grpcPort: 26258
sqlPort: 26257
httpPort: 8080
localityMappings:
  - {nodeLabel: topology.kubernetes.io/region, localityLabel: region}
  - {nodeLabel: topology.kubernetes.io/zone, localityLabel: zone}
podTemplate:
  metadata:
    labels:
      {{- include "marketfeed.selector" (list $ "database") | nindent 6 }}
  spec:
    serviceAccountName: {{ include "marketfeed.databaseName" $ }}
    {{- with .spreadTopologyKey }}
    topologySpreadConstraints:
      - maxSkew: 1
        topologyKey: {{ . }}
        whenUnsatisfiable: DoNotSchedule
        labelSelector:
          matchLabels:
            {{- include "marketfeed.selector" (list $ "database") | nindent 12 }}
    {{- end }}
    containers:
      - name: cockroachdb
        resources:
          {{- toYaml .resources | nindent 10 }}
{{- end }}
{{- end -}}
