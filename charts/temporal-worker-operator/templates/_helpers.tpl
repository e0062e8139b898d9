{{/* Name of the release's objects: the release, with the chart's name unless it is in there already. */}}
{{- define "operator.fullname" -}}
{{- if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 53 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" (.Release.Name | trunc 28 | trimSuffix "-") .Chart.Name -}}
{{- end -}}
{{- end -}}

{{/* Labels that never change: the Deployment's selector is immutable. */}}
{{- define "operator.selectorLabels" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: operator
{{- end -}}

{{- define "operator.labels" -}}
{{ include "operator.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: temporal-worker-operator
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{- define "operator.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- .Values.serviceAccount.name | default (include "operator.fullname" .) -}}
{{- else -}}
{{- required "serviceAccount.name: is empty; with serviceAccount.create=false name an account that exists" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{/* Reference of an image: {image: {repository, tag, digest}, root}. */}}
{{- define "operator.image" -}}
{{- if .image.digest -}}
{{- printf "%s@%s" .image.repository .image.digest -}}
{{- else -}}
{{- printf "%s:%s" .image.repository (.image.tag | default (printf "v%s" .root.Chart.AppVersion)) -}}
{{- end -}}
{{- end -}}

{{/* Security context of the pods. securityContext.seccompProfile.enabled is temporal-worker-controller's word for the default. */}}
{{- define "operator.podSecurityContext" -}}
{{- $context := deepCopy .Values.podSecurityContext -}}
{{- if (((.Values.securityContext).seccompProfile).enabled) -}}
{{- $_ := set $context "seccompProfile" (dict "type" "RuntimeDefault") -}}
{{- end -}}
{{- with $context -}}
securityContext:
  {{- toYaml . | nindent 2 }}
{{- end -}}
{{- end -}}

{{/* Rules over the namespaces that the operator watches. Each is used: tests/e2e/data/rights.yaml says for what. */}}
{{- define "operator.rules" -}}
# Patched with the finalizer that keeps a fleet until the Temporal server is cleaned up; got before it becomes an owner.
- apiGroups: [temporal.io]
  resources: [workerdeployments]
  verbs: [get, list, watch, patch]
- apiGroups: [temporal.io]
  resources: [workerdeployments/status]
  verbs: [patch]
# Asked for by clusters that check who may set blockOwnerDeletion on the children (OwnerReferencesPermissionEnforcement).
- apiGroups: [temporal.io]
  resources: [workerdeployments/finalizers]
  verbs: [update]
# Patched with the finalizer that keeps one while it is used.
- apiGroups: [temporal.io]
  resources: [connections]
  verbs: [list, watch, patch]
- apiGroups: [apps]
  resources: [deployments]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [apps]
  resources: [deployments/scale]
  verbs: [patch]
# Patched with the cost of deleting a pod, so that idle pods go first.
- apiGroups: [""]
  resources: [pods]
  verbs: [list, watch, patch]
- apiGroups: [""]
  resources: [configmaps]
  verbs: [get, create, patch, delete]
# By name only: list or watch would reveal every Secret.
- apiGroups: [""]
  resources: [secrets]
  verbs: [get]
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create]
{{- if or (not .Values.rbac.restrictWatchNamespaces) .Values.rbac.clusterConnections }}
# By name, where a ClusterConnection selects namespaces by their labels.
- apiGroups: [""]
  resources: [namespaces]
  verbs: [get]
{{- end }}
# Kinds of temporal-worker-controller before 1.7, never run: patched with the finalizer that keeps one until it is handed over,
# then with a label.
- apiGroups: [temporal.io]
  resources: [temporalworkerdeployments, temporalconnections]
  verbs: [list, watch, patch]
- apiGroups: [temporal.io]
  resources: [temporalworkerdeployments/status, temporalconnections/status]
  verbs: [patch]
{{ include "operator.templateRules" . }}
{{- end -}}
