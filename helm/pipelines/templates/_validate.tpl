{{/*
pipelines.validate: combinations that cannot work, each with its cure. Names that clients know are fixed, so a second backend in
the namespace is refused here, by name, instead of by Helm's message about ownership.
*/}}
{{- define "pipelines.validate" -}}
{{- include "fairlead.requireName" (dict "name" .Release.Name "fix" "install it under another release name, such as fairlead") -}}
{{- $service := lookup "v1" "Service" .Release.Namespace "ml-pipeline" -}}
{{- if $service -}}
{{- $owner := get ($service.metadata.annotations | default dict) "meta.helm.sh/release-name" | default "something else than Helm" -}}
{{- if ne $owner .Release.Name -}}
{{- fail (printf "namespace %s has Kubeflow Pipelines already, of release %s; its names are fixed, so there can be one. Fix: set pipelines.enabled=false, or install into another namespace" .Release.Namespace $owner) -}}
{{- end -}}
{{- end -}}
{{- if and (gt (int .Values.replicas) 1) (not .Values.global.sql.host) -}}
{{- fail (printf "pipelines.replicas is %d while the SQL server is the embedded one, a single pod. Fix: set global.sql.host and global.sql.existingSecret, or pipelines.replicas=1" (int .Values.replicas)) -}}
{{- end -}}
{{- with .Values.global.sql -}}
{{- if and .host (not .existingSecret) -}}
{{- fail "global.sql.host is set without a password. Fix: set global.sql.existingSecret to a Secret with the keys mlflow-password, feast-password, pipelines-password" -}}
{{- end -}}
{{- end -}}
{{- with .Values.global.s3 -}}
{{- if and .endpoint (not .existingSecret) -}}
{{- fail "global.s3.endpoint is set without credentials. Fix: set global.s3.existingSecret to a Secret with the keys access-key and secret-key" -}}
{{- end -}}
{{- end -}}
{{- end -}}
