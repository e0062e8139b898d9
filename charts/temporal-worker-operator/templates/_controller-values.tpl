{{/* Values of temporal-worker-controller's chart that mean nothing here: refused with what to do instead, unless all they say is
     that something is off. The others of that chart are taken (values.schema.json). */}}
{{- define "operator.refuseControllerValues" -}}
{{- $metrics := printf "metrics are plain HTTP on port metrics.port; let only your Prometheus reach it by a NetworkPolicy" -}}
{{- $refused := dict
  "authProxy" (printf "no proxy stands in front of the metrics. Take the key out; %s" $metrics)
  "kubeRBACProxy" (printf "no proxy stands in front of the metrics. Take the key out; %s" $metrics)
  "certmanager" "no certificate is needed, as there is no webhook. Take the key out"
  "webhook" "there is no webhook: the rules are in the schemas of the kinds, and the API server applies them. Take the key out"
  "namespace" "the chart creates no namespace. Take the key out and install with helm install --create-namespace"
  "prometheus" "the chart has no ServiceMonitor. Take the key out and have your Prometheus scrape the metrics Service (metrics.enabled)"
-}}
{{- range $key, $instead := $refused -}}
{{- if include "operator.says" (index $.Values $key) -}}
{{- fail (printf "%s is a value of temporal-worker-controller's chart and means nothing here: %s." $key $instead) -}}
{{- end -}}
{{- end -}}
{{- if eq (toString .Values.metrics.disableAuth) "false" -}}
{{- fail (printf "metrics.disableAuth: false asks for a proxy that checks who reads the metrics, and there is none: %s, and set metrics.disableAuth to true or take it out." $metrics) -}}
{{- end -}}
{{- end -}}

{{/* Something, when a value says anything but that it is off or empty. */}}
{{- define "operator.says" -}}
{{- if kindIs "map" . -}}
{{- range $value := . }}{{ include "operator.says" $value }}{{ end -}}
{{- else if . -}}
x
{{- end -}}
{{- end -}}
