{{/*
fairlead.objectives: groups of rules on the objectives of models, "words" filled in. Rates are recorded over five minutes and averaged over
longer windows; alerts compare how fast a budget goes (multi-window burn rates, Google's SRE workbook, chapter 5). Five bad requests are
the least that is told, and answers of a version in the shadow, which nobody sees, are left out; texts are late by their first token, not by
their last one (FairleadFirstTokenLate), so their routes are not timed. Brackets [[ ]] are Prometheus' braces;
names of metrics are those of contracts/metric_names.py. The words:

group, name: how groups, and alerts, begin; failing: the alert of failures. kind: how recorded series begin.
of: matchers of the models with a comma at the end, or nothing; only: the same as a selector. unless: what silences the alerts.
availabilityBudget, latencyBudget: shares that may be bad; latencySeconds: when an answer is late. runbook: address of the runbook.
*/}}
{{- define "fairlead.objectives" -}}
{{- $words := merge (dict "notWork" "/startupz|/metrics|/v2/health/.+|<unmatched>" "notTimed" "/startupz|/metrics|/v2/health/.+|<unmatched>|/v1/(chat/)?completions" "seen" "unless on (model, version) fairlead_rollout_weight == 0" "latencyEdge" (include "fairlead.bucket" .words.latencySeconds)) .words -}}
{{- include "fairlead.filled" (dict "text" (include "fairlead.objectives.text" .) "words" $words) | replace "[[" "{{" | replace "]]" "}}" -}}
{{- end -}}

{{- define "fairlead.objectives.text" -}}
- name: @group@
  rules:
    - record: @kind@:fairlead_requests:rate5m
      expr: sum by (namespace, model) (rate(fairlead_requests_total{@of@route!~"@notWork@"}[5m]) @seen@)
    - record: @kind@:fairlead_errors:rate5m
      expr: |
        sum by (namespace, model) (rate(fairlead_requests_total{@of@route!~"@notWork@",code=~"5.."}[5m]) @seen@)
          or 0 * @kind@:fairlead_requests:rate5m@only@
    - record: @kind@:fairlead_slow:rate5m
      expr: |
        sum by (namespace, model) (rate(fairlead_request_duration_seconds_count{@of@route!~"@notTimed@"}[5m]) @seen@)
          - sum by (namespace, model) (rate(fairlead_request_duration_seconds_bucket{@of@route!~"@notTimed@",le="@latencyEdge@"}[5m]) @seen@)
    - record: @kind@:fairlead_errors:ratio_rate5m
      expr: @kind@:fairlead_errors:rate5m@only@ / @kind@:fairlead_requests:rate5m@only@
    - record: @kind@:fairlead_slow:ratio_rate5m
      expr: @kind@:fairlead_slow:rate5m@only@ / @kind@:fairlead_requests:rate5m@only@
    - record: @kind@:fairlead_latency_seconds:p99_5m
      expr: |
        histogram_quantile(0.99, sum by (namespace, model, le) (rate(fairlead_request_duration_seconds_bucket{@of@route!~"@notTimed@"}[5m])))
- name: @group@-hours
  interval: 1m
  rules:
    - record: @kind@:fairlead_errors:ratio_rate30m
      expr: avg_over_time(@kind@:fairlead_errors:rate5m@only@[30m]) / avg_over_time(@kind@:fairlead_requests:rate5m@only@[30m])
    - record: @kind@:fairlead_errors:ratio_rate1h
      expr: avg_over_time(@kind@:fairlead_errors:rate5m@only@[1h]) / avg_over_time(@kind@:fairlead_requests:rate5m@only@[1h])
    - record: @kind@:fairlead_errors:ratio_rate6h
      expr: avg_over_time(@kind@:fairlead_errors:rate5m@only@[6h]) / avg_over_time(@kind@:fairlead_requests:rate5m@only@[6h])
    - record: @kind@:fairlead_slow:ratio_rate30m
      expr: avg_over_time(@kind@:fairlead_slow:rate5m@only@[30m]) / avg_over_time(@kind@:fairlead_requests:rate5m@only@[30m])
    - record: @kind@:fairlead_slow:ratio_rate1h
      expr: avg_over_time(@kind@:fairlead_slow:rate5m@only@[1h]) / avg_over_time(@kind@:fairlead_requests:rate5m@only@[1h])
    - record: @kind@:fairlead_slow:ratio_rate6h
      expr: avg_over_time(@kind@:fairlead_slow:rate5m@only@[6h]) / avg_over_time(@kind@:fairlead_requests:rate5m@only@[6h])
    - record: @kind@:fairlead_errors:increase1h
      expr: sum by (namespace, model) (increase(fairlead_requests_total{@of@route!~"@notWork@",code=~"5.."}[1h]))
    - record: @kind@:fairlead_errors:increase6h
      expr: sum by (namespace, model) (increase(fairlead_requests_total{@of@route!~"@notWork@",code=~"5.."}[6h]))
    - record: @kind@:fairlead_slow:increase1h
      expr: |
        sum by (namespace, model) (increase(fairlead_request_duration_seconds_count{@of@route!~"@notTimed@"}[1h]))
          - sum by (namespace, model) (increase(fairlead_request_duration_seconds_bucket{@of@route!~"@notTimed@",le="@latencyEdge@"}[1h]))
    - record: @kind@:fairlead_slow:increase6h
      expr: |
        sum by (namespace, model) (increase(fairlead_request_duration_seconds_count{@of@route!~"@notTimed@"}[6h]))
          - sum by (namespace, model) (increase(fairlead_request_duration_seconds_bucket{@of@route!~"@notTimed@",le="@latencyEdge@"}[6h]))
- name: @group@-days
  interval: 2m
  rules:
    - record: @kind@:fairlead_errors:ratio_rate3d
      expr: avg_over_time(@kind@:fairlead_errors:rate5m@only@[3d]) / avg_over_time(@kind@:fairlead_requests:rate5m@only@[3d])
    - record: @kind@:fairlead_slow:ratio_rate3d
      expr: avg_over_time(@kind@:fairlead_slow:rate5m@only@[3d]) / avg_over_time(@kind@:fairlead_requests:rate5m@only@[3d])
- name: @group@-alerts
  rules:
    - alert: @failing@
      expr: |
        (
          (@kind@:fairlead_errors:ratio_rate1h@only@ > 14.4 * @availabilityBudget@ and @kind@:fairlead_errors:ratio_rate5m@only@ > 14.4 * @availabilityBudget@
            and @kind@:fairlead_errors:increase1h@only@ >= 5)
          or
          (@kind@:fairlead_errors:ratio_rate6h@only@ > 6 * @availabilityBudget@ and @kind@:fairlead_errors:ratio_rate30m@only@ > 6 * @availabilityBudget@
            and @kind@:fairlead_errors:increase6h@only@ >= 5)
        ) @unless@
      labels: {severity: critical}
      annotations:
        summary: "[[ $labels.model ]] in [[ $labels.namespace ]] fails [[ $value | humanizePercentage ]] of its requests; @availabilityBudget@ is its budget"
        description: "At this pace the month's budget is gone within days. Read the pods' logs; a new version is undone by `fairlead rollback`."
        runbook_url: "@runbook@@failing@"
    - alert: @name@FailsSteadily
      expr: |
        (@kind@:fairlead_errors:ratio_rate3d@only@ > @availabilityBudget@ and @kind@:fairlead_errors:ratio_rate6h@only@ > @availabilityBudget@
          and @kind@:fairlead_errors:increase6h@only@ >= 5) @unless@
      for: 15m
      labels: {severity: warning}
      annotations:
        summary: "[[ $labels.model ]] in [[ $labels.namespace ]] failed [[ $value | humanizePercentage ]] of its requests in three days; @availabilityBudget@ is its budget"
        description: "No hurry, but the objective of the month will be missed. Look at codes and routes of the failures."
        runbook_url: "@runbook@@name@FailsSteadily"
    - alert: @name@Slow
      expr: |
        (
          (@kind@:fairlead_slow:ratio_rate1h@only@ > 14.4 * @latencyBudget@ and @kind@:fairlead_slow:ratio_rate5m@only@ > 14.4 * @latencyBudget@
            and @kind@:fairlead_slow:increase1h@only@ >= 5)
          or
          (@kind@:fairlead_slow:ratio_rate6h@only@ > 6 * @latencyBudget@ and @kind@:fairlead_slow:ratio_rate30m@only@ > 6 * @latencyBudget@
            and @kind@:fairlead_slow:increase6h@only@ >= 5)
        ) @unless@
      labels: {severity: critical}
      annotations:
        summary: "[[ $labels.model ]] in [[ $labels.namespace ]] answers [[ $value | humanizePercentage ]] of its requests later than @latencySeconds@ s; @latencyBudget@ is its budget"
        description: "fairlead_stage_duration_seconds says in which stage the time goes; add pods or CPU."
        runbook_url: "@runbook@@name@Slow"
    - alert: @name@SlowSteadily
      expr: |
        (@kind@:fairlead_slow:ratio_rate3d@only@ > @latencyBudget@ and @kind@:fairlead_slow:ratio_rate6h@only@ > @latencyBudget@
          and @kind@:fairlead_slow:increase6h@only@ >= 5) @unless@
      for: 15m
      labels: {severity: warning}
      annotations:
        summary: "[[ $labels.model ]] in [[ $labels.namespace ]] answered [[ $value | humanizePercentage ]] of its requests later than @latencySeconds@ s in three days; @latencyBudget@ is its budget"
        description: "No hurry, but the objective of the month will be missed. Compare stages and load with those of a week ago."
        runbook_url: "@runbook@@name@SlowSteadily"
{{- end -}}

{{/* fairlead.filled: "text" with the words @key@ of "words" (a dict) replaced. Braces of Prometheus and Grafana stay as they are. */}}
{{- define "fairlead.filled" -}}
{{- $text := .text -}}
{{- range $key, $value := .words -}}{{- $text = replace (printf "@%s@" $key) (toString $value) $text -}}{{- end -}}
{{- $text -}}
{{- end -}}

{{/* fairlead.bucket: a bucket's edge as Prometheus clients write it: 1.0, 0.25. */}}
{{- define "fairlead.bucket" -}}
{{- ternary (printf "%.1f" (. | float64)) (printf "%g" (. | float64)) (eq (. | float64) (. | float64 | floor)) -}}
{{- end -}}
