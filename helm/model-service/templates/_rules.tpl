{{/*
model-service.rules: alerts of this release, from the objectives in monitoring.rules; `{{`-text inside is Prometheus' own.
Names of metrics are those of contracts/metric_names.py, which a test compares. helm/monitoring has the same alerts for all models
(FairleadModel...), which are silent where a release records an objective.
*/}}
{{- define "model-service.rules" -}}
{{- $rules := .Values.monitoring.rules -}}
{{- $model := include "model-service.model" . -}}
{{- $of := printf "namespace=%q, model=%q" .Release.Namespace $model -}}
{{- $group := printf "fairlead-%s-%s" .Release.Namespace $model -}}
{{- $words := dict "group" (printf "%s-objectives" $group) "name" "FairleadRelease" "failing" "FairleadReleaseErrors" "kind" "release"
    "of" (printf "%s," $of) "only" (printf "{%s}" $of) "unless" "" "runbook" $rules.runbookUrl
    "availabilityBudget" (subf 1.0 $rules.availability) "latencyBudget" (subf 1.0 $rules.latencyShare) "latencySeconds" $rules.latencySeconds -}}
groups:
  {{- include "fairlead.objectives" (dict "words" $words) | nindent 2 }}
  - name: {{ $group }}
    rules:
      - record: model:fairlead_objective:availability
        expr: vector({{ $rules.availability }})
        labels: {namespace: {{ .Release.Namespace }}, model: {{ quote $model }}}
      - alert: FairleadReleaseDown
        expr: absent(fairlead_model_info{ {{- $of -}} })
        for: 5m
        labels: {severity: critical, model: {{ $model }}}
        annotations:
          summary: "no pod of {{ $model }} has reported for 5 minutes"
          description: "kubectl describe its pods; `helm rollback {{ .Release.Name }}` brings the version before"
          runbook_url: {{ $rules.runbookUrl }}FairleadReleaseDown
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
