{{- define "marketfeed.simulatorName" -}}
{{- printf "%s-simulator" (include "marketfeed.fullname" .) -}}
{{- end -}}

{{- define "marketfeed.simulatorPod" -}}
automountServiceAccountToken: false
enableServiceLinks: false
{{- include "marketfeed.pullSecrets" . }}
securityContext:
  {{- include "marketfeed.podSecurityContext" . | nindent 2 }}
containers:
  - name: simulator
    image: {{ include "marketfeed.image" (list . "simulator") }}
    imagePullPolicy: {{ .Values.image.pullPolicy }}
    command:
      - marketfeed-simulator
      - "--host=::"
      - --port={{ .Values.simulator.port }}
      - --log-format=json
      - --venue={{ .Values.feed.spec.venue }}
      - generate
      - --symbols={{ join "," .Values.simulator.symbols }}
      - --trade-rate={{ .Values.simulator.tradeRate }}
      - --quote-rate={{ .Values.simulator.quoteRate }}
    ports:
      - {name: venue, containerPort: {{ .Values.simulator.port }}}
    readinessProbe:
      tcpSocket: {port: venue}
      periodSeconds: 5
    resources:
      {{- toYaml .Values.simulator.resources | nindent 6 }}
    securityContext:
      {{- include "marketfeed.containerSecurityContext" . | nindent 6 }}
    volumeMounts:
      - {name: tmp, mountPath: /tmp}
volumes:
  - name: tmp
    emptyDir: {sizeLimit: 16Mi}
{{- end -}}
