{{/* pipelines.profile: the platform as its pods see it, which is what deploy/env/cluster/profile.yaml says of the default release. */}}
{{- define "pipelines.profile" -}}
{{- $part := dict -}}
{{- range list "s3" "mlflow" "redis" "prometheus" "pipelines" -}}
{{- $_ := set $part . (include "fairlead.part" (dict "context" $ "part" .) | fromYaml) -}}
{{- end -}}
{{- $bucket := printf "s3://%s" .Values.global.s3.bucket -}}
{{- $cluster := dict
    "namespace" .Release.Namespace
    "kfp" (printf "http://%s:%d" $part.pipelines.host (int $part.pipelines.port))
    "prometheus" (printf "http://%s:%d" $part.prometheus.host (int $part.prometheus.port))
    "image" (include "fairlead.image" (dict "context" . "image" .Values.publish.image))
    "service_account" .Values.steps.serviceAccount
    "storage" (dict "endpoint" (printf "%s://%s:%d" $part.s3.scheme $part.s3.host (int $part.s3.port)) "region" .Values.global.s3.region "secret" (dict "name" $part.s3.secret))
    "redis" (dict "name" $part.redis.secret "password_key" "password") -}}
{{- $profile := dict
    "home" "/tmp/fairlead"
    "tracking" (printf "http://%s:%d" $part.mlflow.host (int $part.mlflow.port))
    "data" (printf "%s/data" $bucket) "artifacts" (printf "%s/bundles" $bucket)
    "features" (printf "%s/features" $bucket) "predictions" (printf "%s/predictions" $bucket)
    "online" (printf "redis://%s:%d/0" $part.redis.host (int $part.redis.port))
    "cluster" $cluster -}}
{{- mergeOverwrite $profile (deepCopy .Values.publish.profile) | toYaml -}}
{{- end -}}
