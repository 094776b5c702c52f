{{/*
fairlead.expose: Ingress and HTTPRoute of "values" {ingress, httpRoute} to the Service "name" at its port "port"; "at" is where in the
values file they are.
*/}}
{{- define "fairlead.expose" -}}
{{- $name := .name | default (include "fairlead.partName" .) -}}
{{- $ingress := .values.ingress -}}
{{- $route := .values.httpRoute -}}
{{- if $ingress.enabled -}}
{{- if not $ingress.hosts -}}
{{- fail (printf "%singress.enabled is true without a host, which would take every name of the controller. Fix: set %singress.hosts={NAME}" .at .at) -}}
{{- end }}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata:
  {{- include "fairlead.metadata" (merge (dict "name" $name "annotations" $ingress.annotations) .) | nindent 2 }}
spec:
  {{- with $ingress.className }}
  ingressClassName: {{ . }}
  {{- end }}
  {{- with $ingress.tls }}
  tls: {{- toYaml . | nindent 4 }}
  {{- end }}
  rules:
    {{- range $host := $ingress.hosts }}
    - host: {{ $host | quote }}
      http:
        paths: [{path: {{ $ingress.path | quote }}, pathType: Prefix, backend: {service: {name: {{ $name }}, port: {number: {{ $.port | int }}}}}}]
    {{- end }}
{{- end }}
{{- if $route.enabled -}}
{{- if not $route.parentRefs -}}
{{- fail (printf "%shttpRoute.enabled is true without a Gateway. Fix: set %shttpRoute.parentRefs to [{name: GATEWAY, namespace: NAMESPACE}]" .at .at) -}}
{{- end }}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata:
  {{- include "fairlead.metadata" (merge (dict "name" $name "annotations" $route.annotations) .) | nindent 2 }}
spec:
  parentRefs: {{- toYaml $route.parentRefs | nindent 4 }}
  {{- with $route.hostnames }}
  hostnames: {{- toYaml . | nindent 4 }}
  {{- end }}
  rules:
    - matches: [{path: {type: PathPrefix, value: {{ $route.path | quote }}}}]
      backendRefs: [{name: {{ $name }}, port: {{ .port | int }}}]
{{- end }}
{{- end -}}

{{/* fairlead.np.controllers: ingress rules for the pods that "values" {ingress, httpRoute} come through, to "ports"; a list. */}}
{{- define "fairlead.np.controllers" -}}
{{- $namespaces := list -}}
{{- if .values.ingress.enabled -}}{{- $namespaces = concat $namespaces .values.ingress.namespaces -}}{{- end -}}
{{- if .values.httpRoute.enabled -}}{{- $namespaces = concat $namespaces .values.httpRoute.namespaces -}}{{- end -}}
{{- with $namespaces | uniq -}}
- from: [{namespaceSelector: {matchExpressions: [{key: kubernetes.io/metadata.name, operator: In, values: {{ toJson . }}}]}}]
  ports: [{{ range $i, $port := $.ports }}{{ if $i }}, {{ end }}{protocol: TCP, port: {{ $port | int }}}{{ end }}]
{{- end -}}
{{- end -}}
