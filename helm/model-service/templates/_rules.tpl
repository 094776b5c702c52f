{{/*
model-service.rules: alerts of this release, from the objectives in monitoring.rules; `{{`-text inside is Prometheus' own.
Names of metrics are those of contracts/metric_names.py, which a test compares.
*/}}
{{- define "model-service.rules" -}}
{{- $rules := .Values.monitoring.rules -}}
{{- $model := include "model-service.model" . -}}
{{- $of := printf "namespace=%q, model=%q" .Release.Namespace $model -}}
{{- $budget := printf "%g" (subf 1.0 $rules.availability) -}}
groups:
  - name: {{ printf "fairlead-%s-%s" .Release.Namespace $model }}
    rules:
      - alert: FairleadReleaseDown
        expr: absent(fairlead_model_info{ {{- $of -}} })
        for: 5m
        labels: {severity: critical, model: {{ $model }}}
        annotations:
          summary: "no pod of {{ $model }} has reported for 5 minutes"
          description: "kubectl describe its pods; `helm rollback {{ .Release.Name }}` brings the version before"
          runbook_url: {{ $rules.runbookUrl }}FairleadReleaseDown
      - alert: FairleadReleaseErrors
        # The monthly budget would be gone in two days; two windows, so that it ends soon after the errors do.
        expr: |
          (sum(rate(fairlead_requests_total{ {{- $of }}, code=~"5.."}[1h])) / sum(rate(fairlead_requests_total{ {{- $of -}} }[1h])) > 14.4 * {{ $budget }})
            and
          (sum(rate(fairlead_requests_total{ {{- $of }}, code=~"5.."}[5m])) / sum(rate(fairlead_requests_total{ {{- $of -}} }[5m])) > 14.4 * {{ $budget }})
        for: 2m
        labels: {severity: critical, model: {{ $model }}}
        annotations:
          summary: "{{ $model }} fails {{ "{{ $value | humanizePercentage }}" }} of its requests, {{ $budget }} is its budget"
          description: "The pods' logs name the error; a new version is undone by `helm rollback {{ .Release.Name }}`"
          runbook_url: {{ $rules.runbookUrl }}FairleadReleaseErrors
      - alert: FairleadReleaseSlow
        expr: |
          sum(rate(fairlead_request_duration_seconds_bucket{ {{- $of }}, route="/predict", le="{{ include "model-service.edge" $rules.latencySeconds }}"}[10m]))
            / sum(rate(fairlead_request_duration_seconds_count{ {{- $of }}, route="/predict"}[10m])) < {{ $rules.latencyShare }}
        for: 10m
        labels: {severity: warning, model: {{ $model }}}
        annotations:
          summary: "{{ $model }} answers {{ "{{ $value | humanizePercentage }}" }} of its requests within {{ $rules.latencySeconds }} s, {{ $rules.latencyShare }} is its objective"
          description: "fairlead_stage_duration_seconds says in which stage the time goes; more pods, more CPU, or smaller requests"
          runbook_url: {{ $rules.runbookUrl }}FairleadReleaseSlow
      - alert: FairleadReleaseRefuses
        expr: sum(rate(fairlead_requests_total{ {{- $of }}, code="429"}[5m])) / sum(rate(fairlead_requests_total{ {{- $of -}} }[5m])) > 0.01
        for: 5m
        labels: {severity: warning, model: {{ $model }}}
        annotations:
          summary: "{{ $model }} refuses {{ "{{ $value | humanizePercentage }}" }} of its requests because too many wait"
          description: "Raise autoscaling.maxReplicas or resources of release {{ .Release.Name }}"
          runbook_url: {{ $rules.runbookUrl }}FairleadReleaseRefuses
      - alert: FairleadReleaseFeaturesMissing
        expr: |
          sum by (view) (rate(fairlead_feature_reads_total{ {{- $of }}, status!="PRESENT"}[15m]))
            / sum by (view) (rate(fairlead_feature_reads_total{ {{- $of -}} }[15m])) > 0.2
        for: 15m
        labels: {severity: warning, model: {{ $model }}}
        annotations:
          summary: "{{ $model }} finds no fresh features in {{ "{{ $labels.view }}" }} for {{ "{{ $value | humanizePercentage }}" }} of its reads"
          description: "Defaults are served instead; look at the last materialisation"
          runbook_url: {{ $rules.runbookUrl }}FairleadReleaseFeaturesMissing
{{- end -}}

{{/* model-service.edge: a bucket's edge as Prometheus clients write it: 1.0, 0.25. */}}
{{- define "model-service.edge" -}}
{{- ternary (printf "%.1f" (. | float64)) (printf "%g" (. | float64)) (eq (. | float64) (. | float64 | floor)) -}}
{{- end -}}
