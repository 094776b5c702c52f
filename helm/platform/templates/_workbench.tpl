{{/* platform.workbench: the component of people's workbenches, and what it has to do without. */}}
{{- define "platform.workbench" -}}
{{- $console := include "platform.console" . | fromYaml -}}
component: workbench
absent: {{ concat $console.absent (ternary (list) (list "redis") (index .Values "feature-store" "enabled")) | toJson }}
{{- end -}}

{{/* platform.workbenchRules: what the command line reads of releases and runs, and the logs of steps. */}}
{{- define "platform.workbenchRules" -}}
{{ include "platform.consoleRules" . }}
{{- if .Values.pipelines.enabled }}
- {apiGroups: [""], resources: [pods/log], verbs: [get]}
{{- end }}
{{- end -}}
