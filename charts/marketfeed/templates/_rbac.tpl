{{- /* What the operator may do where it serves MarketFeeds: no wildcard, no Secret, no Pod that it could change. */ -}}
{{- define "marketfeed.rules" -}}
# MarketFeeds are read; what is written is their status.
- apiGroups: [marketfeed.dev]
  resources: [marketfeeds]
  verbs: [get, list, watch]
- apiGroups: [marketfeed.dev]
  resources: [marketfeeds/status]
  verbs: [get, patch]
# An owner reference with blockOwnerDeletion needs this where the API server checks it.
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
# The claim on a namespace with feeds, by which two operators tell one another.
- apiGroups: [coordination.k8s.io]
  resources: [leases]
  verbs: [create]
- apiGroups: [coordination.k8s.io]
  resources: [leases]
  resourceNames: [marketfeed-scope]
  verbs: [get, update]
# Pods are looked at only: are they ready, and if not, why.
- apiGroups: [""]
  resources: [pods]
  verbs: [get, list, watch]
- apiGroups: [""]
  resources: [events]
  verbs: [create, list]
{{- with .Values.operator.watchSecrets }}
# Their versions are asked for, never their content; RBAC knows no right to the one without the other.
- apiGroups: [""]
  resources: [secrets]
  resourceNames: {{ toJson . }}
  verbs: [get]
{{- end }}
# Kinds of other operators, where they are installed. Topics are never deleted.
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

{{- /* In its own namespace: the Leases, and the canary of older versions, which is deleted. */ -}}
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

{{- /* The namespaces that a namespaced operator serves, its own among them, as JSON. */ -}}
{{- define "marketfeed.namespaces" -}}
{{- prepend .Values.operator.watchNamespaces .Release.Namespace | uniq | toJson -}}
{{- end -}}
