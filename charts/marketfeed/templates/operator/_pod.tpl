{{- define "marketfeed.operatorPod" -}}
serviceAccountName: {{ include "marketfeed.serviceAccountName" . }}
{{- include "marketfeed.pullSecrets" . }}
enableServiceLinks: false
terminationGracePeriodSeconds: {{ add .Values.operator.settings.drainDeadlineSeconds 10 }}
securityContext:
  {{- include "marketfeed.podSecurityContext" . | nindent 2 }}
{{- with .Values.operator.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .Values.operator.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.operator.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.operator.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
topologySpreadConstraints:
  - maxSkew: 1
    topologyKey: kubernetes.io/hostname
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels:
        {{- include "marketfeed.selector" (list . "operator") | nindent 8 }}
containers:
  - name: operator
    image: {{ include "marketfeed.image" (list . "operator") }}
    imagePullPolicy: {{ .Values.image.pullPolicy }}
    command: [marketfeed-operator]
    env:
      {{- include "marketfeed.operatorEnvironment" . | nindent 6 }}
    ports:
      - name: metrics
        containerPort: 8000
    startupProbe:
      httpGet: {path: /livez, port: metrics}
      periodSeconds: 5
      failureThreshold: {{ div .Values.operator.settings.startDeadlineSeconds 5 | add 12 }}
    livenessProbe:
      httpGet: {path: /livez, port: metrics}
      periodSeconds: 15
      timeoutSeconds: 3
      failureThreshold: 3
    readinessProbe:
      httpGet: {path: /readyz, port: metrics}
      periodSeconds: 5
      timeoutSeconds: 3
    resources:
      {{- toYaml .Values.operator.resources | nindent 6 }}
    securityContext:
      {{- include "marketfeed.containerSecurityContext" . | nindent 6 }}
    terminationMessagePolicy: FallbackToLogsOnError
    volumeMounts:
      - name: tmp
        mountPath: /tmp
volumes:
  - name: tmp
    emptyDir: {sizeLimit: 16Mi}
{{- end -}}

{{- /* Keys of operator.settings in camel case become environment variables: leaseSeconds is LEASE_SECONDS. */ -}}
{{- define "marketfeed.operatorEnvironment" -}}
- name: OPERATOR_NAME
  valueFrom: {fieldRef: {fieldPath: metadata.name}}
- {name: LOG_LEVEL, value: {{ .Values.operator.logLevel }}}
- {name: LOG_FORMAT, value: {{ .Values.operator.logFormat }}}
- {name: WORKER_IMAGE, value: {{ include "marketfeed.image" (list . "worker") | quote }}}
- {name: CONSUMER_IMAGE, value: {{ include "marketfeed.image" (list . "consumer") | quote }}}
- {name: IMAGE_PULL_POLICY, value: {{ .Values.image.pullPolicy }}}
{{- if eq .Values.rbac.scope "namespaced" }}
- {name: WATCH_NAMESPACES, value: {{ include "marketfeed.namespaces" . | fromJsonArray | join "," | quote }}}
{{- end }}
- {name: WATCH_SECRETS, value: {{ not (empty .Values.operator.watchSecrets) | quote }}}
{{- with .Values.operator.tenants }}
- {name: ALLOWED_IMAGES, value: {{ join "," .allowedImages | quote }}}
- {name: ALLOWED_PRIORITY_CLASSES, value: {{ join "," .allowedPriorityClasses | quote }}}
- {name: TOPIC_NAMESPACES, value: {{ join "," .topicNamespaces | quote }}}
{{- end }}
{{- $old := .Values.operator.settings.claimSeconds }}
{{- range $name, $value := .Values.operator.settings }}
{{- if not (or (kindIs "invalid" $value) (and (eq $name "namespaceLeaseSeconds") (not (kindIs "invalid" $old)))) }}
{{- /* Helm parses numbers as floats and formats large ones with an exponent. */ -}}
{{- $shown := $value }}
{{- if and (kindIs "float64" $value) (eq (floor $value) $value) }}
{{- $shown = int64 $value }}
{{- end }}
- {name: {{ snakecase $name | upper }}, value: {{ $shown | toString | quote }}}
{{- end }}
{{- end }}
{{- with .Values.operator.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end -}}
