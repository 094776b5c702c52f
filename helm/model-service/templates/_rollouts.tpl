{{/*
model-service.fronts: what the Service of the model selects, as YAML: {front: server, router or slot, now: of these, needed: what has to be there,
slots: whether there are some}. Another front than now is selected once it has a pod that is ready, and what was selected goes an upgrade later: no
request meets nobody. Which one of the slots is selected the keeper says.
*/}}
{{- define "model-service.fronts" -}}
{{- $want := ternary (ternary "slot" "router" .Values.rollouts.httpRoute.enabled) "server" .Values.rollouts.enabled -}}
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
now: {{ $now }}
needed: {{ list $want $now | uniq | toJson }}
slots: {{ or (ne $want "server") (ne $now "server") }}
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
    "host" (include "fairlead.bind" (dict "context" .))
    "grpc_port" (.Values.config.grpc_port | default 0 | int)
    "router" (ternary "httpRoute" "envoy" .Values.rollouts.httpRoute.enabled) "path" .Values.rollouts.httpRoute.path -}}
{{- range $key, $value := $settings }}
- {name: FAIRLEAD_ROLLOUT_{{ upper $key }}, value: {{ toJson $value | quote }}}
{{- end }}
{{- end -}}

{{/* model-service.ways: what leads from outside to the model's pods, for fairlead.np.controllers. */}}
{{- define "model-service.ways" -}}
{{- $route := ternary .Values.rollouts.httpRoute .Values.httpRoute .Values.rollouts.httpRoute.enabled -}}
{{- dict "ingress" .Values.ingress "httpRoute" $route | toYaml -}}
{{- end -}}

{{- define "model-service.validate.route" -}}
{{- $route := .Values.rollouts.httpRoute -}}
{{- $fronts := include "model-service.fronts" . | fromYaml -}}
{{- if and $route.enabled (not .Values.rollouts.enabled) -}}
{{- fail "rollouts.httpRoute.enabled without rollouts. Fix: set rollouts.enabled, or httpRoute for a route to a release without" -}}
{{- end -}}
{{- if and $route.enabled .Values.httpRoute.enabled -}}
{{- fail "rollouts.httpRoute.enabled and httpRoute.enabled are two routes to one model. Fix: leave rollouts.httpRoute" -}}
{{- end -}}
{{- if and $route.enabled (not $route.parentRefs) -}}
{{- fail "rollouts.httpRoute.enabled is true without a Gateway. Fix: set rollouts.httpRoute.parentRefs to [{name: GATEWAY, namespace: NAMESPACE}]" -}}
{{- end -}}
{{- if and (has "slot" $fronts.needed) (gt (len $fronts.needed) 1) -}}
{{- fail (printf "rollouts.httpRoute.enabled cannot change on a release that answers: its Service selects the %s, and clients would meet nobody meanwhile. Fix: install another release, and move the host names to it" $fronts.now) -}}
{{- end -}}
{{- end -}}

{{- define "model-service.validate.rollouts" -}}
{{- include "model-service.validate.route" . -}}
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
{{- if and .Values.config.grpc_port .Values.rollouts.httpRoute.enabled -}}
{{- fail "rollouts.httpRoute.enabled with config.grpc_port: an HTTPRoute splits HTTP only. Fix: leave one of them" -}}
{{- end -}}
{{- end -}}
{{- end -}}
