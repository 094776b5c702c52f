{{/*
monitoring.config: the configuration of our own Prometheus. Pods say by the usual annotations prometheus.io/scrape, port and path
that they have metrics; only those of the namespaces that it may list are found.
*/}}
{{- define "monitoring.config" -}}
global: {scrape_interval: {{ .Values.interval }}, evaluation_interval: {{ .Values.interval }}}
rule_files:
  {{- range $name, $_ := include "monitoring.rules" . | fromYaml }}
  - /etc/prometheus/{{ $name }}
  {{- end }}
{{- with include "monitoring.alertmanagers" . | fromYamlArray }}
alerting:
  alertmanagers: {{- toYaml . | nindent 4 }}
{{- end }}
scrape_configs:
  - job_name: prometheus
    static_configs: [{targets: ["localhost:9090"]}]
  - job_name: pods
    kubernetes_sd_configs:
      - role: pod
        namespaces: {names: {{ toJson (concat (list .Release.Namespace) .Values.namespaces) }}}
    relabel_configs:
      - {source_labels: [__meta_kubernetes_pod_annotation_prometheus_io_scrape], action: keep, regex: "true"}
      - {source_labels: [__meta_kubernetes_pod_phase], action: keep, regex: Running}
      # Each port of a pod is found; with one address they are one target.
      - source_labels: [__meta_kubernetes_pod_ip, __meta_kubernetes_pod_annotation_prometheus_io_port]
        separator: ";"
        regex: ([^:;]+);(\d+)
        replacement: $1:$2
        target_label: __address__
      - source_labels: [__meta_kubernetes_pod_ip, __meta_kubernetes_pod_annotation_prometheus_io_port]
        separator: ";"
        regex: ([^;]*:[^;]*);(\d+)
        replacement: "[$1]:$2"
        target_label: __address__
      - {source_labels: [__meta_kubernetes_pod_annotation_prometheus_io_path], action: replace, regex: (.+), target_label: __metrics_path__}
      - {source_labels: [__meta_kubernetes_namespace], target_label: namespace}
      - {source_labels: [__meta_kubernetes_pod_name], target_label: pod}
      - {source_labels: [__meta_kubernetes_pod_label_app_kubernetes_io_instance], target_label: release}
      - {source_labels: [__meta_kubernetes_pod_label_app_kubernetes_io_component], target_label: component}
{{- end -}}

{{/* monitoring.alertmanagers: whom our Prometheus tells, as its configuration has it: the chart's own, and those of the user's own. */}}
{{- define "monitoring.alertmanagers" -}}
{{- if .Values.alertmanager.enabled }}
- static_configs: [{targets: ["{{ include "fairlead.partName" (dict "context" $ "component" "alertmanager") }}:9093"]}]
{{- end }}
{{- with .Values.alertmanagers }}
{{- $how := $.Values.alertmanagersAccess }}
- static_configs: [{targets: {{ toJson . }}}]
  scheme: {{ $how.scheme }}
  path_prefix: {{ $how.pathPrefix }}
  {{- if $how.basicAuth }}
  basic_auth: {username_file: /etc/alertmanagers/username, password_file: /etc/alertmanagers/password}
  {{- end }}
  {{- if eq $how.scheme "https" }}
  tls_config:
    min_version: TLS12
    {{- if $how.ca }}
    ca_file: /etc/alertmanagers/ca.crt
    {{- end }}
    {{- if $how.clientCertificate }}
    cert_file: /etc/alertmanagers/tls.crt
    key_file: /etc/alertmanagers/tls.key
    {{- end }}
  {{- end }}
{{- end }}
{{- end -}}

{{/* monitoring.alertmanagerKeys: the keys that Prometheus reads of alertmanagersAccess.existingSecret, as a JSON list. */}}
{{- define "monitoring.alertmanagerKeys" -}}
{{- $how := .Values.alertmanagersAccess -}}
{{- $keys := list -}}
{{- if $how.basicAuth -}}{{- $keys = concat $keys (list "username" "password") -}}{{- end -}}
{{- if $how.ca -}}{{- $keys = append $keys "ca.crt" -}}{{- end -}}
{{- if $how.clientCertificate -}}{{- $keys = concat $keys (list "tls.crt" "tls.key") -}}{{- end -}}
{{- toJson $keys -}}
{{- end -}}
