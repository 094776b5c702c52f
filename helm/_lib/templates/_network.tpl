{{/*
fairlead.part: where a shared part is, as YAML: {host, port, external, component, cidr}. "part" is sql, redis, s3, mlflow,
prometheus, pipelines or metadata; `global.<part>` replaces the embedded one (host, or endpoint for s3).
*/}}
{{- define "fairlead.part" -}}
{{- $known := dict "sql" (list "mariadb" 3306) "redis" (list "redis" 6379) "s3" (list "s3" 9000) "mlflow" (list "mlflow" 5000)
    "prometheus" (list "prometheus" 9090) "pipelines" (list "ml-pipeline" 8888) "metadata" (list "metadata-grpc" 8080) -}}
{{- $default := index $known .part -}}
{{- $global := index (.context.Values.global | default dict) .part | default dict -}}
{{- $host := $global.host -}}
{{- $port := $global.port | default (index $default 1) -}}
{{- $scheme := "http" -}}
{{- with $global.endpoint -}}
{{- $url := urlParse . -}}
{{- $scheme = $url.scheme -}}
{{- $host = first (splitList ":" $url.host) -}}
{{- $port = ternary (last (splitList ":" $url.host)) (ternary "443" "80" (eq $scheme "https")) (contains ":" $url.host) -}}
{{- end -}}
{{- $embedded := include "fairlead.partName" (dict "context" .context "component" (index $default 0)) -}}
{{- if eq .part "pipelines" -}}{{- /* its clients know no other name */ -}}{{- $embedded = "ml-pipeline" -}}{{- end -}}
host: {{ $host | default $embedded }}
port: {{ $port | int }}
scheme: {{ $scheme }}
external: {{ not (empty $host) }}
component: {{ index $default 0 }}
cidr: {{ $global.cidr | default "0.0.0.0/0" }}
secret: {{ $global.existingSecret | default (include "fairlead.partName" (dict "context" .context "component" .part)) }}
{{- end -}}

{{/* fairlead.np.dns: egress rule for cluster DNS. */}}
{{- define "fairlead.np.dns" -}}
- to: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: kube-system}}}]
  ports: [{protocol: UDP, port: 53}, {protocol: TCP, port: 53}]
{{- end -}}

{{/*
fairlead.np.block: the peers with addresses in "cidr". 0.0.0.0/0 is everywhere: where servers listen on IPv6, its addresses too
(engines of policies on clusters without it may refuse them).
*/}}
{{- define "fairlead.np.block" -}}
{{- $six := and (eq .cidr "0.0.0.0/0") (contains ":" (include "fairlead.bind" (dict "context" .context))) -}}
[{ipBlock: {cidr: {{ quote .cidr }}}}{{ if $six }}, {ipBlock: {cidr: "::/0"}}{{ end }}]
{{- end -}}

{{/*
fairlead.np.to: egress rule to the shared part "part" (see fairlead.part), or to the Kubernetes API when "part" is kubernetes.
An embedded part is found by its labels in "namespace" (the release's own), an external one by `global.<part>.cidr` and port.
*/}}
{{- define "fairlead.np.to" -}}
{{- if eq .part "kubernetes" -}}
{{- $api := (((.context.Values.global | default dict).networkPolicy | default dict).kubernetesApi) | default dict -}}
- to: {{ include "fairlead.np.block" (dict "context" .context "cidr" ($api.cidr | default "0.0.0.0/0")) }}
  ports: [{{ range $i, $port := ($api.ports | default (list 443 6443)) }}{{ if $i }}, {{ end }}{protocol: TCP, port: {{ $port }}}{{ end }}]
{{- else -}}
{{- $part := include "fairlead.part" . | fromYaml -}}
{{- if $part.external -}}
- to: {{ include "fairlead.np.block" (dict "context" .context "cidr" $part.cidr) }}
{{- else -}}
- to:
    - podSelector:
        matchLabels: {app.kubernetes.io/part-of: fairlead, app.kubernetes.io/component: {{ $part.component }}}
      {{- with .namespace }}
      namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: {{ . }}}}
      {{- end }}
{{- end }}
  ports: [{protocol: TCP, port: {{ $part.port | int }}}]
{{- end -}}
{{- end -}}

{{/*
fairlead.np.from: ingress rule for the pods that carry the label fairlead.io/access-<access>, in the release's namespace and in
those of `global.networkPolicy.clientNamespaces`; "ports" is a list of numbers. With "steps" true also for steps of workflows.
*/}}
{{- define "fairlead.np.from" -}}
{{- $policy := ((.context.Values.global | default dict).networkPolicy) | default dict -}}
{{- $selector := dict "matchLabels" (dict (printf "fairlead.io/access-%s" .access) "true") -}}
- from:
    - podSelector: {{ toJson $selector }}
    {{- with $policy.clientNamespaces }}
    - podSelector: {{ toJson $selector }}
      namespaceSelector: {matchExpressions: [{key: kubernetes.io/metadata.name, operator: In, values: {{ toJson . }}}]}
    {{- end }}
    {{- if .steps }}
    - podSelector: {matchExpressions: [{key: workflows.argoproj.io/workflow, operator: Exists}]}
    {{- end }}
  ports: [{{ range $i, $port := .ports }}{{ if $i }}, {{ end }}{protocol: TCP, port: {{ $port }}}{{ end }}]
{{- end -}}

{{/*
fairlead.networkPolicy: the whole policy of a component, both directions denied but for: ingress "ports" from pods with access
"access" (default: the component) and "extraIngress"; egress DNS, the parts in "needs" and "extraEgress" (lists of rules).
Rendered unless `global.networkPolicy.enabled` is false.
*/}}
{{- define "fairlead.networkPolicy" -}}
{{- $policy := ((.context.Values.global | default dict).networkPolicy) | default dict -}}
{{- if ne (toString $policy.enabled) "false" -}}
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  {{- include "fairlead.metadata" . | nindent 2 }}
spec:
  podSelector:
    matchLabels: {{- include "fairlead.selectorLabels" . | nindent 6 }}
  policyTypes: [Ingress, Egress]
  {{- if or .ports .extraIngress }}
  ingress:
    {{- if .ports }}
    {{- include "fairlead.np.from" (dict "context" .context "access" (.access | default .component) "ports" .ports "steps" .steps) | nindent 4 }}
    {{- end }}
    {{- with .extraIngress }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- end }}
  {{- if or .needs .extraEgress }}
  egress:
    {{- include "fairlead.np.dns" . | nindent 4 }}
    {{- $context := .context }}
    {{- range .needs }}
    {{- include "fairlead.np.to" (dict "context" $context "part" .) | nindent 4 }}
    {{- end }}
    {{- with .extraEgress }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- end }}
{{- end -}}
{{- end -}}

{{/* fairlead.pdb: a PodDisruptionBudget, rendered only when "replicas" > 1. */}}
{{- define "fairlead.pdb" -}}
{{- if gt (int .replicas) 1 -}}
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  {{- include "fairlead.metadata" . | nindent 2 }}
spec:
  maxUnavailable: 1
  unhealthyPodEvictionPolicy: AlwaysAllow
  selector:
    matchLabels: {{- include "fairlead.selectorLabels" . | nindent 6 }}
{{- end -}}
{{- end -}}
