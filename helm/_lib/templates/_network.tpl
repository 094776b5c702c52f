{{/*
fairlead.part: where a shared part is, as YAML: {host, port, pod (port of its pods), external, component, cidr}. "part" is a server of fairlead.edges; `global.<part>`
replaces the embedded one (host, or endpoint for s3).
*/}}
{{- define "fairlead.part" -}}
{{- $server := get (include "fairlead.edges" . | fromYaml).servers .part -}}
{{- $global := index (.context.Values.global | default dict) .part | default dict -}}
{{- $host := $global.host -}}
{{- $port := $global.port | default $server.service | default (first $server.ports) -}}
{{- $scheme := "http" -}}
{{- with $global.endpoint -}}
{{- $url := urlParse . -}}
{{- $scheme = $url.scheme -}}
{{- $host = first (splitList ":" $url.host) -}}
{{- $port = ternary (last (splitList ":" $url.host)) (ternary "443" "80" (eq $scheme "https")) (contains ":" $url.host) -}}
{{- end -}}
{{- $embedded := include "fairlead.partName" (dict "context" .context "component" $server.component) -}}
{{- if eq .part "pipelines" -}}{{- /* its clients know no other name */ -}}{{- $embedded = "ml-pipeline" -}}{{- end -}}
host: {{ $host | default $embedded }}
port: {{ $port | int }}
pod: {{ first $server.ports | int }}
scheme: {{ $scheme }}
external: {{ not (empty $host) }}
component: {{ $server.component }}
cidr: {{ $global.cidr | default "0.0.0.0/0" }}
secret: {{ $global.existingSecret | default (include "fairlead.partName" (dict "context" .context "component" .part)) }}
{{- end -}}

{{/* fairlead.np.dns: egress rule for cluster DNS. */}}
{{- define "fairlead.np.dns" -}}
- to: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: kube-system}}}]
  ports: [{protocol: UDP, port: 53}, {protocol: TCP, port: 53}]
{{- end -}}

{{/* fairlead.np.ports: "ports" (numbers) of TCP as a policy lists them. */}}
{{- define "fairlead.np.ports" -}}
[{{ range $i, $port := .ports }}{{ if $i }}, {{ end }}{protocol: TCP, port: {{ $port | int }}}{{ end }}]
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
fairlead.np.to: egress rule to "ports" of the server "part" of fairlead.edges, or to the Kubernetes API when "part" is kubernetes. An
embedded server is found by its labels, an external one by `global.<part>.cidr` and port.
*/}}
{{- define "fairlead.np.to" -}}
{{- if eq .part "kubernetes" -}}
{{- $api := (((.context.Values.global | default dict).networkPolicy | default dict).kubernetesApi) | default dict -}}
- to: {{ include "fairlead.np.block" (dict "context" .context "cidr" ($api.cidr | default "0.0.0.0/0")) }}
  ports: {{ include "fairlead.np.ports" (dict "ports" ($api.ports | default (list 443 6443))) }}
{{- else -}}
{{- $part := include "fairlead.part" . | fromYaml -}}
{{- if $part.external -}}
- to: {{ include "fairlead.np.block" (dict "context" .context "cidr" $part.cidr) }}
  ports: {{ include "fairlead.np.ports" (dict "ports" (list $part.port)) }}
{{- else -}}
- to: [{podSelector: {matchLabels: {app.kubernetes.io/part-of: fairlead, app.kubernetes.io/component: {{ $part.component }}}}}]
  ports: {{ include "fairlead.np.ports" . }}
{{- end }}
{{- end -}}
{{- end -}}

{{/* fairlead.np.egress: the egress rules of "component": DNS and its edges, without the servers in "absent". */}}
{{- define "fairlead.np.egress" -}}
{{ include "fairlead.np.dns" . }}
{{- range include "fairlead.edgesOf" . | fromJsonArray }}
{{ include "fairlead.np.to" (dict "context" $.context "part" .server "ports" .ports) }}
{{- end }}
{{- end -}}

{{/*
fairlead.np.from: ingress rule for the pods that carry the label fairlead.io/access-<access>, in the release's namespace and in
those of `global.networkPolicy.clientNamespaces`; "ports" is a list of numbers.
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
  ports: {{ include "fairlead.np.ports" . }}
{{- end -}}

{{/* fairlead.np.ingress: the ingress rules of "component": clients by its access label, steps of workflows, and Prometheus. */}}
{{- define "fairlead.np.ingress" -}}
{{- $admits := include "fairlead.admits" . | fromJson -}}
{{- $policy := ((.context.Values.global | default dict).networkPolicy) | default dict -}}
{{- with $admits.clients }}
{{ include "fairlead.np.from" (dict "context" $.context "access" $admits.name "ports" .) }}
{{- end }}
{{- with $admits.steps }}
- from: [{podSelector: {matchExpressions: [{key: workflows.argoproj.io/workflow, operator: Exists}]}}]
  ports: {{ include "fairlead.np.ports" (dict "ports" .) }}
{{- end }}
{{- with $admits.scrapes }}
- from: {{ prepend ($policy.metrics | default list) (dict "podSelector" (dict "matchLabels" (dict "app.kubernetes.io/name" "prometheus"))) | toJson }}
  ports: {{ include "fairlead.np.ports" (dict "ports" .) }}
{{- end }}
{{- end -}}

{{/* fairlead.np.scrapes: egress rules of Prometheus to all that it reads, in this namespace and in "namespaces". */}}
{{- define "fairlead.np.scrapes" -}}
{{- $table := include "fairlead.edges" . | fromYaml -}}
{{- range include "fairlead.grouped" (dict "edges" $table.scrapes) | fromJsonArray }}
{{- $pods := dict "matchLabels" (dict "app.kubernetes.io/part-of" "fairlead" "app.kubernetes.io/component" (get $table.servers .server).component) }}
- to:
    - podSelector: {{ toJson $pods }}
    {{- with $.namespaces }}
    - podSelector: {{ toJson $pods }}
      namespaceSelector: {matchExpressions: [{key: kubernetes.io/metadata.name, operator: In, values: {{ toJson . }}}]}
    {{- end }}
  ports: {{ include "fairlead.np.ports" . }}
{{- end }}
{{- end -}}

{{/*
fairlead.networkPolicy: the whole policy of "component", both directions denied but for the edges of fairlead.edges (without the servers in
"absent") and the rules in "extraIngress" and "extraEgress". "selector" replaces that of its pods. Rendered unless
`global.networkPolicy.enabled` is false.
*/}}
{{- define "fairlead.networkPolicy" -}}
{{- $policy := ((.context.Values.global | default dict).networkPolicy) | default dict -}}
{{- if ne (toString $policy.enabled) "false" -}}
{{- $ingress := concat (include "fairlead.np.ingress" . | fromYamlArray) (.extraIngress | default list) -}}
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  {{- include "fairlead.metadata" . | nindent 2 }}
spec:
  podSelector: {{ .selector | default (dict "matchLabels" (include "fairlead.selectorLabels" . | fromYaml)) | toJson }}
  policyTypes: [Ingress, Egress]
  {{- with $ingress }}
  ingress: {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- if or (include "fairlead.edgesOf" . | fromJsonArray) .extraEgress }}
  egress:
    {{- include "fairlead.np.egress" . | nindent 4 }}
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
