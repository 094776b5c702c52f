{{/* pipelines.profile: fairlead.profile with what runs need, and with the user's own. */}}
{{- define "pipelines.profile" -}}
{{- $steps := dict "image" (include "fairlead.image" (dict "context" . "image" .Values.publish.image)) "service_account" .Values.steps.serviceAccount -}}
{{- $profile := mergeOverwrite (include "fairlead.profile" (dict "context" .) | fromYaml) (dict "cluster" $steps) -}}
{{- mergeOverwrite $profile (deepCopy .Values.publish.profile) | toYaml -}}
{{- end -}}

{{/*
pipelines.readsRuns: the rules of a Role that looks at runs: the calls of deploy/cli/cluster/in_cluster.py, and no others. What it starts, the API
server starts.
*/}}
{{- define "pipelines.readsRuns" -}}
- {apiGroups: [argoproj.io], resources: [workflows], verbs: [list]}
- {apiGroups: [""], resources: [pods], verbs: [list]}
- {apiGroups: [""], resources: [pods/log], verbs: [get]}
{{- end -}}
