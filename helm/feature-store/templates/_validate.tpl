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
{{- with .Values.stream -}}
{{- if .enabled -}}
{{- range list "repo" "host" "port" "password" -}}
{{- if hasKey $.Values.stream.config . -}}
{{- fail (printf "stream.config.%s is set by the chart. Fix: leave it out%s" . (ternary ", and name a Secret in stream.existingSecret" "" (eq . "password"))) -}}
{{- end -}}
{{- end -}}
{{- if not (and .config.brokers .config.topics) -}}
{{- fail "stream.enabled needs brokers and topics. Fix: set stream.config.brokers to host:port, and stream.config.topics to a list of {topic, source}" -}}
{{- end -}}
{{- with .existingSecret -}}
{{- include "fairlead.requireSecret" (dict "context" $ "secret" . "value" "stream.existingSecret" "keys" (list "password")) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
