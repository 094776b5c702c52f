{{/*
monitoring.config: the configuration of our own Prometheus. Pods say by the usual annotations prometheus.io/scrape, port and path
that they have metrics; only those of the namespaces that it may list are found.
*/}}
{{- define "monitoring.config" -}}
global: {scrape_interval: {{ .Values.interval }}, evaluation_interval: {{ .Values.interval }}}
rule_files: [/etc/prometheus/models.yaml, /etc/prometheus/platform.yaml]
{{- with .Values.alertmanagers }}
alerting:
  alertmanagers: [{static_configs: [{targets: {{ toJson . }}}]}]
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
