{{/*
model-service.fronts: what the Service of the model selects, as YAML: {front: server or router, needed: what has to be there}. Another front
than now is selected once it has a pod that is ready, and what was selected goes an upgrade later: no request meets nobody.
*/}}
{{- define "model-service.fronts" -}}
{{- $want := ternary "router" "server" .Values.rollouts.enabled -}}
{{- $name := include "model-service.fullname" (dict "context" .) -}}
{{- $service := lookup "v1" "Service" .Release.Namespace $name | default dict -}}
{{- $now := index (($service.spec | default dict).selector | default dict) "app.kubernetes.io/component" | default $want -}}
{{- $front := $want -}}
{{- if ne $now $want -}}
{{- $wanted := include "model-service.fullname" (dict "context" . "suffix" (ternary "router" "" .Values.rollouts.enabled)) -}}
{{- $deployment := lookup "apps/v1" "Deployment" .Release.Namespace $wanted | default dict -}}
{{- if lt (($deployment.status | default dict).readyReplicas | default 0 | int) 1 -}}{{- $front = $now -}}{{- end -}}
{{- end -}}
front: {{ $front }}
needed: {{ list $want $now | uniq | toJson }}
{{- end -}}

{{/* model-service.slotSelector: labels of the pods of "slot" (a, b), or of the server where that is empty. */}}
{{- define "model-service.slotSelector" -}}
{{- if .slot -}}
{{ include "fairlead.selectorLabels" (dict "context" .context "component" "slot") }}
fairlead.io/slot: {{ .slot }}
{{- else -}}
{{ include "model-service.selector" .context }}
{{- end -}}
{{- end -}}

{{/* model-service.keeperEnv: settings of the keeper (services/rollout/settings.py), beside those of the storage. */}}
{{- define "model-service.keeperEnv" -}}
{{- $settings := dict
    "model" (include "model-service.model" .) "namespace" .Release.Namespace "name" (include "model-service.fullname" (dict "context" .))
    "version" (include "model-service.version" .) "source" .Values.model.source "digest" .Values.model.digest
    "replicas" (include "model-service.minimum" . | int) "autoscaling" .Values.autoscaling.enabled
    "artifacts" .Values.rollouts.artifacts "tracking" .Values.rollouts.tracking
    "predictions" (ternary (.Values.config.predictions | default dict).folder "" (eq (include "model-service.logsToS3" .) "true"))
    "host" (include "fairlead.bind" (dict "context" .)) -}}
{{- range $key, $value := $settings }}
- {name: FAIRLEAD_ROLLOUT_{{ upper $key }}, value: {{ toJson $value | quote }}}
{{- end }}
{{- end -}}

{{- define "model-service.validate.rollouts" -}}
{{- if .Values.rollouts.enabled -}}
{{- if not .Values.model.digest -}}
{{- fail "rollouts.enabled needs an immutable first version. Fix: set model.digest" -}}
{{- end -}}
{{- if not (regexMatch "^[A-Za-z0-9_-]+$" (include "model-service.version" .)) -}}
{{- fail (printf "rollouts.enabled: model.version %q is a part of names. Fix: use letters, digits, - and _" (include "model-service.version" .)) -}}
{{- end -}}
{{- if lt (include "model-service.minimum" . | int) 1 -}}
{{- fail "rollouts.enabled with replicaCount 0 has nobody to answer. Fix: set replicaCount to 1 or more" -}}
{{- end -}}
{{- if .Values.config.grpc_port -}}
{{- fail "rollouts.enabled with config.grpc_port: the router takes HTTP only. Fix: leave one of them" -}}
{{- end -}}
{{- end -}}
{{- end -}}
