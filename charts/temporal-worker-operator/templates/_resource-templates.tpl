{{/* Whether the policy of WorkerResourceTemplates is made, so that they are on; it is an object of the cluster. */}}
{{- define "operator.templatesOn" -}}
{{- $restricted := and .Values.rbac.restrictWatchNamespaces (not .Values.rbac.resourceTemplates) -}}
{{- if and .Values.workerResourceTemplate.policy.create (not $restricted) -}}true{{- end -}}
{{- end -}}

{{/* Name of the policy, its binding, and of the role that reads them. */}}
{{- define "operator.templatePolicy" -}}
{{- printf "%s-%s-resource-templates" .Release.Namespace (include "operator.fullname" .) -}}
{{- end -}}

{{/* Rules for WorkerResourceTemplates and their copies. */}}
{{- define "operator.templateRules" -}}
# Patched with the owner that they go with, also in place of a TemporalWorkerDeployment. Never deleted: clusters that check who may
# set owners (OwnerReferencesPermissionEnforcement) ask for that right, as who sets an owner can have an object go with it.
- apiGroups: [temporal.io]
  resources: [workerresourcetemplates]
  verbs: [list, watch, patch, delete]
- apiGroups: [temporal.io]
  resources: [workerresourcetemplates/status]
  verbs: [patch]
{{- if include "operator.templatesOn" . }}
# Asked for by the same clusters, for blockOwnerDeletion on the copies.
- apiGroups: [temporal.io]
  resources: [workerresourcetemplates/finalizers]
  verbs: [update]
{{- range .Values.workerResourceTemplate.allowedResources }}
# Copies of WorkerResourceTemplates, by name.
- apiGroups: {{ toJson .apiGroups }}
  resources: {{ toJson .resources }}
  verbs: [get, create, patch, delete]
{{- end }}
{{- end }}
{{- end -}}

{{/* Kinds that templates may have, for the operator. */}}
{{- define "operator.templateKinds" -}}
{{- $kinds := list -}}
{{- range .Values.workerResourceTemplate.allowedResources -}}
{{- $kinds = concat $kinds .kinds -}}
{{- end -}}
{{- join "," $kinds -}}
{{- end -}}

{{/* A list of texts in CEL. */}}
{{- define "operator.celList" -}}
{{- $quoted := list -}}
{{- range . -}}
{{- $quoted = append $quoted (squote .) -}}
{{- end -}}
[{{ join ", " $quoted }}]
{{- end -}}

{{/* In CEL whether an entry of allowedResources has a kind and group: {entry, kind, group}, the latter as expressions. */}}
{{- define "operator.celMatches" -}}
({{ .kind }} in {{ include "operator.celList" (splitList "," (lower (join "," .entry.kinds))) }} && {{ .group }} in {{ include "operator.celList" .entry.apiGroups }})
{{- end -}}

{{/* A right that the author of a template must have: {entry, resource, verb, unless, kind, group}. */}}
{{- define "operator.celAuthor" -}}
- expression: >-
    {{ .unless }} || !{{ include "operator.celMatches" . }} ||
    authorizer.group({{ .group }}).resource('{{ .resource }}').namespace(request.namespace).check('{{ .verb }}').allowed()
  messageExpression: >-
    'user ' + request.userInfo.username + ' may not {{ .verb }} {{ .resource }} in namespace ' + request.namespace +
    ': a template can do no more than its author'
  reason: Forbidden
{{- end -}}
