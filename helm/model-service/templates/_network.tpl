{{/* model-service.egress: DNS, the storage that bundles come from, and the online store. */}}
{{- define "model-service.egress" -}}
{{ include "fairlead.np.dns" . }}
{{- if has "s3" (include "model-service.needs" . | fromJsonArray) }}
{{- $endpoint := (include "model-service.storage" . | fromYaml).endpoint | default "https://s3.amazonaws.com" }}
{{- include "model-service.egressTo" (dict "context" . "url" $endpoint "peers" .Values.networkPolicy.storage) }}
{{- end }}
{{- if hasPrefix "redis" (.Values.config.online | default "") }}
{{- include "model-service.egressTo" (dict "context" . "url" .Values.config.online "peers" .Values.networkPolicy.online) }}
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
{{- $known := dict "https" 443 "http" 80 "redis" 6379 "rediss" 6379 -}}
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
