{{/* feature-store.validate: combinations that cannot work, each with its cure. */}}
{{- define "feature-store.validate" -}}
{{- include "fairlead.requireName" (dict "name" .Release.Name "fix" "install it under another release name, such as fairlead") -}}
{{- with .Values.global.redis -}}
{{- if and .host (not .existingSecret) -}}
{{- fail "global.redis.host is set without a password. Fix: set global.redis.existingSecret to a Secret with the key password" -}}
{{- end -}}
{{- if .existingSecret -}}
{{- include "fairlead.requireSecret" (dict "context" $ "secret" .existingSecret "value" "global.redis.existingSecret" "keys" (list "password")) -}}
{{- end -}}
{{- end -}}
{{- end -}}
