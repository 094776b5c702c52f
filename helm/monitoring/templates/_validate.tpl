{{/* monitoring.own: "true" when our own Prometheus runs. */}}
{{- define "monitoring.own" -}}
{{- $operator := .Capabilities.APIVersions.Has "monitoring.coreos.com/v1/PodMonitor" -}}
{{- if or (eq .Values.mode "prometheus") (and (eq .Values.mode "auto") (not $operator)) -}}true{{- end -}}
{{- end -}}

{{/* monitoring.validate: combinations that cannot work, each with its cure. */}}
{{- define "monitoring.validate" -}}
{{- include "fairlead.requireName" (dict "name" .Release.Name "fix" "install it under another release name, such as fairlead") -}}
{{- if and (eq .Values.mode "operator") (not (.Capabilities.APIVersions.Has "monitoring.coreos.com/v1/PodMonitor")) -}}
{{- fail "monitoring.mode is operator, but the cluster has no PodMonitor of monitoring.coreos.com/v1. Fix: install the Prometheus operator first (helm template: --api-versions monitoring.coreos.com/v1/PodMonitor), or set monitoring.mode to auto" -}}
{{- end -}}
{{- if and .Values.alertmanagers (not (include "monitoring.own" .)) -}}
{{- fail "monitoring.alertmanagers is for our own Prometheus, and here the operator's is used. Fix: configure alertmanagers there, or set monitoring.mode to prometheus" -}}
{{- end -}}
{{- if has .Release.Namespace .Values.namespaces -}}
{{- fail (printf "monitoring.namespaces lists %s, the namespace of the release, which is always watched. Fix: remove it from the list" .Release.Namespace) -}}
{{- end -}}
{{- end -}}
