{{/*
monitoring.rules: the files of rules by name, as YAML, filled in from `objectives`. Those in rules/own are for our own Prometheus, those in
rules/operator for that of the operator, which reads the kubelets too. Those in rules/priced need `prices`.
*/}}
{{- define "monitoring.rules" -}}
{{- $words := include "monitoring.words" . | fromYaml -}}
{{- $files := dict -}}
{{- $objectives := merge (dict "group" "fairlead-objectives" "name" "FairleadModel" "failing" "FairleadModelFailing" "kind" "model" "of" "" "only" ""
    "unless" "unless on (namespace, model) model:fairlead_objective:availability") $words -}}
{{- $_ := set $files "objectives.yaml" (printf "groups:\n%s\n" (include "fairlead.objectives" (dict "words" $objectives))) -}}
{{- $whose := ternary "own" "operator" (eq (include "monitoring.own" .) "true") -}}
{{- $patterns := list "rules/*.yaml" (printf "rules/%s/*.yaml" $whose) -}}
{{- if or .Values.prices.coreHour .Values.prices.gibHour .Values.prices.gpuHour -}}
{{- $patterns = append $patterns "rules/priced/*.yaml" -}}
{{- end -}}
{{- range $pattern := $patterns -}}
{{- range $path, $_ := $.Files.Glob $pattern -}}
{{- $_ := set $files (base $path) (include "fairlead.filled" (dict "text" ($.Files.Get $path) "words" $words)) -}}
{{- end -}}
{{- end -}}
{{- toYaml $files -}}
{{- end -}}

{{/* monitoring.words: what stands between @ and @ in the rules, as YAML. */}}
{{- define "monitoring.words" -}}
{{- $goals := .Values.objectives -}}
{{- $own := include "monitoring.own" . -}}
{{- $runs := list -}}
{{- range $task, $hours := $goals.runHours -}}
{{- $runs = append $runs (printf "label_replace(vector(%v * 3600), \"task\", %q, \"\", \"\")" $hours $task) -}}
{{- end -}}
availabilityBudget: {{ subf 1.0 $goals.availability | toString | quote }}
latencyBudget: {{ subf 1.0 $goals.latencyShare | toString | quote }}
latencySeconds: {{ $goals.latencySeconds }}
firstTokenSeconds: {{ $goals.firstTokenSeconds }}
tokensPerSecond: {{ $goals.tokensPerSecond }}
featureHours: {{ $goals.featureHours }}
modelDays: {{ $goals.modelDays }}
monitorMinutes: {{ $goals.monitorMinutes }}
coreHour: {{ .Values.prices.coreHour }}
gibHour: {{ .Values.prices.gibHour }}
gpuHour: {{ .Values.prices.gpuHour }}
currency: {{ .Values.prices.currency | quote }}
certificateDays: {{ $goals.certificateDays }}
certificateProbes: {{ $goals.certificateProbes | default "nobody" | quote }}
rolloutHours: {{ $goals.rolloutHours }}
everyModelMonitored: {{ ternary 1 0 $goals.everyModelMonitored }}
runSeconds: {{ join " or " $runs | default "vector(0) > 1" | quote }}
job: {{ ternary "pods" (printf "%s/%s" .Release.Namespace (include "fairlead.partName" (dict "context" $ "component" "monitoring"))) (eq $own "true") }}
namespaces: {{ concat (list .Release.Namespace) .Values.namespaces | join "|" | quote }}
runbook: https://github.com/fairlead/fairlead/blob/main/docs/runbook.md#
{{- end -}}
