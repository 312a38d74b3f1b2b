{{- /* Permissions in the served namespaces: no wildcards, no Secrets, read-only Pods. */ -}}
{{- define "marketfeed.rules" -}}
# MarketFeeds are read only, except for their status.
- apiGroups: [marketfeed.dev]
  resources: [marketfeeds]
  verbs: [get, list, watch]
- apiGroups: [marketfeed.dev]
  resources: [marketfeeds/status]
  verbs: [get, patch]
# Required for owner references with blockOwnerDeletion (admission plugin OwnerReferencesPermissionEnforcement).
- apiGroups: [marketfeed.dev]
  resources: [marketfeeds/finalizers]
  verbs: [update]
# Children.
- apiGroups: [""]
  resources: [configmaps, services, serviceaccounts]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [apps]
  resources: [deployments, statefulsets]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [batch]
  resources: [jobs, cronjobs]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [policy]
  resources: [poddisruptionbudgets]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [networking.k8s.io]
  resources: [networkpolicies]
  verbs: [get, list, watch, create, patch, delete]
# Lease in each namespace with feeds, by which a second operator is detected.
- apiGroups: [coordination.k8s.io]
  resources: [leases]
  verbs: [create]
- apiGroups: [coordination.k8s.io]
  resources: [leases]
  resourceNames: [marketfeed-scope]
  verbs: [get, update]
# Pods are read for their readiness and the reason when they are not ready.
- apiGroups: [""]
  resources: [pods]
  verbs: [get, list, watch]
- apiGroups: [""]
  resources: [events]
  verbs: [create, list]
{{- with .Values.operator.watchSecrets }}
# Only their metadata is requested; RBAC has no permission for metadata without content.
- apiGroups: [""]
  resources: [secrets]
  resourceNames: {{ toJson . }}
  verbs: [get]
{{- end }}
# Custom resources of other operators, where installed. Topics are never deleted.
- apiGroups: [kafka.strimzi.io]
  resources: [kafkatopics]
  verbs: [get, list, create, patch]
- apiGroups: [kafka.strimzi.io]
  resources: [kafkas]
  verbs: [list]
- apiGroups: [monitoring.coreos.com]
  resources: [podmonitors]
  verbs: [get, list, create, patch, delete]
- apiGroups: [keda.sh]
  resources: [scaledobjects]
  verbs: [get, list, create, patch, delete]
{{- end -}}

{{- /* In the operator's own namespace: its leader lease, and deletion of the canary MarketFeed of earlier versions. */ -}}
{{- define "marketfeed.homeRules" -}}
- apiGroups: [coordination.k8s.io]
  resources: [leases]
  verbs: [create]
- apiGroups: [coordination.k8s.io]
  resources: [leases]
  resourceNames: [marketfeed-operator]
  verbs: [get, update]
- apiGroups: [marketfeed.dev]
  resources: [marketfeeds]
  resourceNames: [marketfeed-canary]
  verbs: [get, delete]
{{- end -}}

{{- /* Namespaces of a namespaced operator, including its own, as JSON. */ -}}
{{- define "marketfeed.namespaces" -}}
{{- prepend .Values.operator.watchNamespaces .Release.Namespace | uniq | toJson -}}
{{- end -}}
