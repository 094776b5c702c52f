{{/* model-service.egress: DNS, the storage that bundles come from, the online store, Redis with hot adapters and shared jobs, and of answers from
documents the chat model that writes them and the database of their vectors. */}}
{{- define "model-service.egress" -}}
{{ include "fairlead.np.dns" . }}
{{- if has "s3" (include "model-service.needs" . | fromJsonArray) }}
{{- $endpoint := (include "model-service.storage" . | fromYaml).endpoint | default "https://s3.amazonaws.com" }}
{{- include "model-service.egressTo" (dict "context" . "url" $endpoint "peers" .Values.networkPolicy.storage) }}
{{- end }}
{{- if hasPrefix "redis" (.Values.config.online | default "") }}
{{- include "model-service.egressTo" (dict "context" . "url" .Values.config.online "peers" .Values.networkPolicy.online) }}
{{- end }}
{{- range $part, $redis := include "model-service.redis" . | fromYaml }}
{{- include "model-service.egressTo" (dict "context" $ "url" ($redis | default "redis://secret:6379") "peers" (index $.Values.networkPolicy $part)) }}
{{- end }}
{{- range compact (list (.Values.config.writer | default dict).url .Values.config.vector_store) }}
{{- include "model-service.egressTo" (dict "context" $ "url" . "peers" list) }}
{{- end }}
{{- end -}}

{{/*
model-service.egressTo: the rule for the server at "url": "peers" when they are given; the pods of a namespace for a name of a
Service (NAME, NAME.NAMESPACE, NAME.NAMESPACE.svc...); the world for any other name. Of several hosts the first one counts. One port,
and that of Redis beside that of its sentinels.
*/}}
{{- define "model-service.egressTo" -}}
{{- $url := urlParse (regexReplaceAll ",[^/?]*" .url "") -}}
{{- $six := regexFind "^\\[[^]]+\\]" $url.host -}}
{{- $place := ternary $url.host (regexReplaceAll "^\\[[^]]+\\]" $url.host "six") (empty $six) -}}
{{- $host := first (splitList ":" $place) -}}
{{- $known := dict "https" 443 "http" 80 "redis" 6379 "rediss" 6379 "postgresql" 5432 "postgres" 5432 -}}
{{- $port := ternary (last (splitList ":" $place)) (index $known $url.scheme) (contains ":" $place) -}}
{{- $parts := splitList "." $host -}}
{{- $address := regexMatch "^[0-9.]+$" $host -}}
{{- if .peers }}
- to: {{- toYaml .peers | nindent 4 }}
{{- else if $six }}
- to: [{ipBlock: {cidr: "{{ regexReplaceAll "[][]" $six "" }}/128"}}]
{{- else if $address }}
- to: [{ipBlock: {cidr: {{ $host }}/32}}]
{{- else if eq (len $parts) 1 }}
- to: [{podSelector: {}}]
{{- else if or (eq (len $parts) 2) (eq (index $parts 2) "svc") }}
- to: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: {{ index $parts 1 }}}}}]
{{- else }}
- to: {{ include "fairlead.np.block" (dict "context" .context "cidr" "0.0.0.0/0") }}
{{- end }}
  ports: [{protocol: TCP, port: {{ $port | int }}}{{ if contains "sentinel=" $url.query }}, {protocol: TCP, port: 6379}{{ end }}]
{{- end -}}

{{/* model-service.fromClients: ingress rules for who may ask the model, at "ports"; "more" are peers beside those of the values. */}}
{{- define "model-service.fromClients" -}}
{{- $test := include "fairlead.selectorLabels" (dict "context" .context "component" "test") | fromYaml -}}
{{- $peers := concat (list (dict "podSelector" (dict "matchLabels" $test))) .context.Values.networkPolicy.clients (.more | default list) -}}
{{ include "fairlead.np.from" (dict "context" .context "access" "model" "ports" .ports) }}
- from:
    {{- toYaml $peers | nindent 4 }}
  ports: {{ include "fairlead.np.ports" . }}
{{- with include "fairlead.np.controllers" (dict "values" (include "model-service.ways" .context | fromYaml) "ports" (list 3000)) }}
{{ . }}
{{- end }}
{{- end -}}

{{/* model-service.ownPods: peers, the release's pods of "components". */}}
{{- define "model-service.ownPods" -}}
{{- $found := list -}}
{{- range .components -}}
{{- $found = append $found (dict "podSelector" (dict "matchLabels" (include "fairlead.selectorLabels" (dict "context" $.context "component" .) | fromYaml))) -}}
{{- end -}}
{{- toJson $found -}}
{{- end -}}

{{/* model-service.rolloutPolicies: clients reach the router only, which reaches the slots and what the keeper tells it; behind a Gateway, which is
a client, they reach the slots. Requests to the keeper need a label. */}}
{{- define "model-service.rolloutPolicies" -}}
{{- $policy := .Values.networkPolicy }}
{{- $router := include "model-service.ownPods" (dict "context" . "components" (list "router")) }}
{{- $keeper := include "model-service.ownPods" (dict "context" . "components" (list "rollout")) }}
{{- $slot := include "model-service.ownPods" (dict "context" . "components" (list "slot")) }}
{{- $envoys := has "router" (include "model-service.fronts" . | fromYaml).needed }}
{{- $ports := list 3000 }}
{{- with .Values.config.grpc_port }}{{- $ports = append $ports (. | int) }}{{- end }}
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  {{- include "model-service.meta" (dict "context" . "suffix" "slots" "component" "slot") | nindent 2 }}
spec:
  podSelector:
    matchLabels: {{- include "fairlead.selectorLabels" (dict "context" . "component" "slot") | nindent 6 }}
  policyTypes: [Ingress, Egress]
  ingress:
    {{- if $envoys }}
    - from: {{ concat ($keeper | fromJsonArray) $policy.metrics | toJson }}
      ports: [{protocol: TCP, port: 3000}]
    - from: {{ $router }}
      ports: {{ include "fairlead.np.ports" (dict "ports" $ports) }}
    {{- if .Values.config.drafts }}
    - from: {{ $slot }}
      ports: [{protocol: TCP, port: 3000}]
    {{- end }}
    {{- else }}
    {{- include "model-service.fromClients" (dict "context" . "ports" (list 3000) "more" (concat ($keeper | fromJsonArray) $policy.metrics)) | nindent 4 }}
    {{- end }}
  egress:
    {{- include "model-service.egress" . | nindent 4 }}
    {{- if and $envoys .Values.config.drafts }}
    - to: {{ $slot }}
      ports: [{protocol: TCP, port: 3000}]
    {{- end }}
    {{- with $policy.extraEgress }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
---
{{- if $envoys }}
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  {{- include "model-service.meta" (dict "context" . "suffix" "router" "component" "router") | nindent 2 }}
spec:
  podSelector:
    matchLabels: {{- include "fairlead.selectorLabels" (dict "context" . "component" "router") | nindent 6 }}
  policyTypes: [Ingress, Egress]
  ingress:
    {{- include "model-service.fromClients" (dict "context" . "ports" $ports) | nindent 4 }}
    - from: {{ $keeper }}
      ports: [{protocol: TCP, port: 9902}]
  egress:
    {{- include "fairlead.np.dns" . | nindent 4 }}
    - to: {{ $slot }}
      ports: {{ include "fairlead.np.ports" (dict "ports" $ports) }}
    - to: {{ $keeper }}
      ports: [{protocol: TCP, port: 9111}]
---
{{- end }}
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  {{- include "model-service.meta" (dict "context" . "suffix" "rollouts" "component" "rollout") | nindent 2 }}
spec:
  podSelector:
    matchLabels: {{- include "fairlead.selectorLabels" (dict "context" . "component" "rollout") | nindent 6 }}
  policyTypes: [Ingress, Egress]
  ingress:
    {{- include "fairlead.np.from" (dict "context" . "access" "rollouts" "ports" (list 9110)) | nindent 4 }}
    {{- with $policy.metrics }}
    - from: {{ toJson . }}
      ports: [{protocol: TCP, port: 9110}]
    {{- end }}
    {{- if $envoys }}
    - from: {{ $router }}
      ports: [{protocol: TCP, port: 9111}]
    {{- end }}
  egress:
    {{- include "model-service.egress" . | nindent 4 }}
    - to: {{ $slot }}
      ports: [{protocol: TCP, port: 3000}]
    {{- if $envoys }}
    - to: {{ $router }}
      ports: [{protocol: TCP, port: 9902}]
    {{- end }}
    {{- include "fairlead.np.to" (dict "context" . "part" "kubernetes") | nindent 4 }}
    {{- with .Values.rollouts.tracking }}
    {{- include "model-service.egressTo" (dict "context" $ "url" . "peers" list) | nindent 4 }}
    {{- end }}
---
{{- end -}}
