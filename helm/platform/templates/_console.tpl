{{/* platform.console: the component of the console, and what it has to do without. */}}
{{- define "platform.console" -}}
{{- $own := and .Values.monitoring.enabled (include "monitoring.own" (dict "Values" .Values.monitoring "Capabilities" .Capabilities)) -}}
component: console
absent: [{{ if not $own }}prometheus, {{ end }}{{ if not .Values.pipelines.enabled }}pipelines{{ end }}]
{{- end -}}

{{/* platform.consoleRules: what it lists: releases of models, and where there are pipelines the pods and workflows of runs. */}}
{{- define "platform.consoleRules" -}}
- {apiGroups: [apps], resources: [deployments], verbs: [list]}
- {apiGroups: [""], resources: [services], verbs: [list]}
{{- if .Values.pipelines.enabled }}
- {apiGroups: [""], resources: [pods], verbs: [list]}
- {apiGroups: [argoproj.io], resources: [workflows], verbs: [list]}
{{- end }}
{{- end -}}

{{/* platform.consoleSecret: the Secret with the keys of those who may look, and what signs their sessions. */}}
{{- define "platform.consoleSecret" -}}
{{- .Values.console.existingSecret | default (include "fairlead.partName" (dict "context" . "component" "console-keys")) -}}
{{- end -}}

{{/* platform.consoleKeys: that Secret, made once and read again on every upgrade. The pod sees hashes of its keys only. */}}
{{- define "platform.consoleKeys" -}}
{{- include "fairlead.mayGenerate" (dict "context" . "value" "console.existingSecret" "fix"
    "set console.existingSecret to a Secret with the keys `keys` (a line NAME:SHA256-OF-THE-KEY[:operator] for each person) and session (32 random bytes or more), or console.enabled=false") -}}
{{- $old := (lookup "v1" "Secret" .Release.Namespace (include "platform.consoleSecret" .)).data | default dict -}}
{{- $key := index $old "key" | default (randAlphaNum 40 | b64enc) -}}
{{- $operator := index $old "operator-key" | default (randAlphaNum 40 | b64enc) -}}
apiVersion: v1
kind: Secret
metadata:
  {{- include "fairlead.metadata" (dict "context" . "component" "console" "name" (include "platform.consoleSecret" .)) | nindent 2 }}
type: Opaque
data:
  key: {{ $key }}
  operator-key: {{ $operator }}
  keys: {{ index $old "keys" | default (printf "reader:%s\noperator:%s:operator\n" ($key | b64dec | sha256sum) ($operator | b64dec | sha256sum) | b64enc) }}
  session: {{ index $old "session" | default (randAlphaNum 64 | b64enc) }}
{{- end -}}

{{/* platform.consoleModelKeys: sources of a volume with a file MODEL for each model whose key the console has; the demo's is known,
     unless it is given. */}}
{{- define "platform.consoleModelKeys" -}}
{{- $given := .Values.console.modelKeys -}}
{{- $models := list -}}
{{- range $given }}{{ $models = append $models .model }}{{ end -}}
{{- if .Values.demo.enabled -}}
{{- $keys := .Values.demo.secrets.keys -}}
{{- if and (not $keys.name) $keys.generate (not (has .Values.demo.model.name $models)) -}}
{{- $given = append $given (dict "model" .Values.demo.model.name "secret" (printf "%s-keys" (include "platform.demoName" .)) "key" "key") -}}
{{- end -}}
{{- end -}}
{{- range $given }}
- secret: {name: {{ .secret }}, optional: true, items: [{key: {{ .key }}, path: {{ .model }}}]}
{{- else -}}
[]
{{- end -}}
{{- end -}}
