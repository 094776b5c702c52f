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
{{- range $key := list "alertmanagers" "alertmanager" -}}
{{- if and (eq $key "alertmanager" | ternary $.Values.alertmanager.enabled $.Values.alertmanagers) (not (include "monitoring.own" $)) -}}
{{- fail (printf "monitoring.%s is for our own Prometheus, and here the operator's is used. Fix: configure alertmanagers there, or set monitoring.mode to prometheus" $key) -}}
{{- end -}}
{{- end -}}
{{- $access := .Values.alertmanagersAccess -}}
{{- $keys := include "monitoring.alertmanagerKeys" . | fromJsonArray -}}
{{- if and $keys (not $access.existingSecret) -}}
{{- fail (printf "monitoring.alertmanagersAccess.existingSecret is empty, and Prometheus is to read %s there. Fix: name a Secret that has these keys" (join ", " $keys)) -}}
{{- end -}}
{{- if and (or $access.ca $access.clientCertificate) (ne $access.scheme "https") -}}
{{- fail "monitoring.alertmanagersAccess has certificates, but its scheme is http. Fix: set monitoring.alertmanagersAccess.scheme to https" -}}
{{- end -}}
{{- if $keys -}}
{{- include "fairlead.requireSecret" (dict "context" . "value" "monitoring.alertmanagersAccess.existingSecret" "secret" $access.existingSecret "keys" $keys) -}}
{{- end -}}
{{- if .Values.alertmanager.enabled -}}
{{- include "monitoring.validate.alertmanager" . -}}
{{- end -}}
{{- if has .Release.Namespace .Values.namespaces -}}
{{- fail (printf "monitoring.namespaces lists %s, the namespace of the release, which is always watched. Fix: remove it from the list" .Release.Namespace) -}}
{{- end -}}
{{- end -}}

{{- define "monitoring.validate.alertmanager" -}}
{{- $values := .Values.alertmanager -}}
{{- $config := toJson $values.config -}}
{{- if not $values.existingSecret -}}
{{- if contains "/etc/alertmanager/secret/" $config -}}
{{- fail (printf "monitoring.alertmanager.existingSecret is empty, and its receivers read files of it. Fix: kubectl -n %s create secret generic alert-receivers --from-literal=url=https://... and set monitoring.alertmanager.existingSecret=alert-receivers" .Release.Namespace) -}}
{{- end -}}
{{- else -}}
{{- include "fairlead.requireSecret" (dict "context" . "value" "monitoring.alertmanager.existingSecret" "secret" $values.existingSecret "keys" list) -}}
{{- end -}}
{{- if regexMatch `"(auth_password|auth_secret|password|api_key|service_key|bot_token|credentials|client_secret|opsgenie_api_key|smtp_auth_password)":` $config -}}
{{- fail "monitoring.alertmanager.config has a password, which would be readable in a ConfigMap. Fix: put it into monitoring.alertmanager.existingSecret and use the key that ends in _file" -}}
{{- end -}}
{{- end -}}
