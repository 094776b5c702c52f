{{/*
platform.validate: what cannot work, each with its cure, before anything is created: keys of other charts, external stores
without their Secret, Secrets that are not there, and combinations of replicas that lose data or do nothing.
*/}}
{{- define "platform.validate" -}}
{{- include "fairlead.requireName" (dict "name" .Release.Name "fix" "install it under another release name, such as fairlead") -}}
{{- $moved := dict "mysql" "mariadb, or global.sql for a server of your own" "minio" "s3, or global.s3 for an endpoint of your own" "postgresql" "mariadb: Kubeflow Pipelines needs the MySQL protocol"
    "redis" "feature-store.redis, or global.redis for a server of your own" "feast" "feature-store" "kfp" "pipelines" "prometheus" "monitoring.prometheus" "storageClass" "global.storageClass" "imageRegistry" "global.imageRegistry" -}}
{{- range $old, $new := $moved -}}
{{- if hasKey $.Values $old -}}
{{- fail (printf "the key %s is not one of this chart. Fix: use %s (UPGRADING.md)" $old $new) -}}
{{- end -}}
{{- end -}}
{{- include "platform.requireStores" . -}}
{{- include "platform.validateModelRouter" . -}}
{{- range $key := list "predictions" "artifacts" "host" "port" -}}
{{- if hasKey $.Values.monitor.config $key -}}
{{- fail (printf "monitor.config.%s is set by the chart. Fix: leave it out; the log and the bundles are in global.s3.bucket" $key) -}}
{{- end -}}
{{- end -}}
{{- $mlflow := .Values.mlflow -}}
{{- if and $mlflow.autoscaling.enabled (gt (int $mlflow.autoscaling.minReplicas) (int $mlflow.autoscaling.maxReplicas)) -}}
{{- fail (printf "mlflow.autoscaling.minReplicas is %d, more than maxReplicas, %d. Fix: raise maxReplicas" (int $mlflow.autoscaling.minReplicas) (int $mlflow.autoscaling.maxReplicas)) -}}
{{- end -}}
{{- if .Values.console.enabled -}}
{{- range $way := list "ingress" "httpRoute" -}}
{{- $given := get $.Values.console $way -}}
{{- if and $given.enabled (ne $given.path "/") -}}
{{- fail (printf "console.%s.path is %s, and the console's pages link to each other below /. Fix: give it a host name of its own, and set console.%s.path=/" $way $given.path $way) -}}
{{- end -}}
{{- end -}}
{{- with .Values.console.existingSecret -}}
{{- include "fairlead.requireSecret" (dict "context" $ "secret" . "value" "console.existingSecret" "keys" (list "keys" "session")) -}}
{{- end -}}
{{- end -}}
{{- include "platform.validateWorkbench" . -}}
{{- with .Values.federation -}}
{{- if and .enabled (or (not .sites) (not .existingSecret)) -}}
{{- fail "federation.enabled needs sites and certificates. Fix: fairlead federation certificates keys --site NAME --host HOST; then set federation.sites, and federation.existingSecret to a Secret with the keys ca.pem, server.crt, server.key" -}}
{{- end -}}
{{- if .enabled -}}
{{- include "fairlead.requireSecret" (dict "context" $ "secret" .existingSecret "value" "federation.existingSecret" "keys" (list "ca.pem" "server.crt" "server.key")) -}}
{{- end -}}
{{- end -}}
{{- if and .Values.demo.enabled .Values.demo.model.digest -}}
{{- fail "demo.model.digest is set, but the demo serves what its own training makes. Fix: install helm/model-service for a model of your own, and leave demo.model.digest empty" -}}
{{- end -}}
{{- if and .Values.demo.enabled (not (hasPrefix (printf "s3://%s/" .Values.global.s3.bucket) .Values.demo.model.source)) -}}
{{- fail (printf "demo.model.source is %s, which is not in the bucket %s. Fix: set demo.model.source=s3://%s/demo/fraud" .Values.demo.model.source .Values.global.s3.bucket .Values.global.s3.bucket) -}}
{{- end -}}
{{- end -}}

{{/* platform.requireStores: every external store has its Secret, and every Secret that is named has its keys. */}}
{{- define "platform.requireStores" -}}
{{- $sql := .Values.global.sql -}}
{{- $s3 := .Values.global.s3 -}}
{{- $keys := list "mlflow-password" "feast-password" "pipelines-password" -}}
{{- if .Values.global.search.enabled -}}{{- $keys = append $keys "search-password" -}}{{- end -}}
{{- if not $sql.host -}}{{- $keys = append $keys "root-password" -}}{{- end -}}
{{- if and $sql.host (not $sql.existingSecret) -}}
{{- fail (printf "global.sql.host is set without a password. Fix: set global.sql.existingSecret to a Secret with the keys %s" (join ", " $keys)) -}}
{{- end -}}
{{- if and $s3.endpoint (not $s3.existingSecret) -}}
{{- fail "global.s3.endpoint is set without credentials. Fix: set global.s3.existingSecret to a Secret with the keys access-key, secret-key" -}}
{{- end -}}
{{- range $who, $secret := pick $s3.keys "models" "watchers" -}}
{{- if and $secret (not $s3.endpoint) -}}
{{- fail (printf "global.s3.keys.%s is set, but the S3 of this release knows the keys only that it makes. Fix: leave it empty, or set global.s3.endpoint" $who) -}}
{{- end -}}
{{- with $secret -}}
{{- include "fairlead.requireSecret" (dict "context" $ "secret" . "value" (printf "global.s3.keys.%s" $who) "keys" (list "access-key" "secret-key")) -}}
{{- end -}}
{{- end -}}
{{- $mongodb := .Values.global.mongodb -}}
{{- if ne (empty $mongodb.host) (empty $mongodb.existingSecret) -}}
{{- fail "global.mongodb needs a host and its credentials. Fix: set global.mongodb.host, and global.mongodb.existingSecret to a Secret with the keys username, password" -}}
{{- end -}}
{{- if and $mongodb.documents (not $mongodb.host) -}}
{{- fail "global.mongodb.documents names a database of no server. Fix: set global.mongodb.host" -}}
{{- end -}}
{{- with $mongodb.existingSecret -}}
{{- include "fairlead.requireSecret" (dict "context" $ "secret" . "value" "global.mongodb.existingSecret" "keys" (list "username" "password")) -}}
{{- end -}}
{{- with $sql.existingSecret -}}
{{- include "fairlead.requireSecret" (dict "context" $ "secret" . "value" "global.sql.existingSecret" "keys" $keys) -}}
{{- end -}}
{{- with .Values.global.predictions.existingSecret -}}
{{- include "fairlead.requireSecret" (dict "context" $ "secret" . "value" "global.predictions.existingSecret" "keys" (list "salt")) -}}
{{- end -}}
{{- with $s3.existingSecret -}}
{{- include "fairlead.requireSecret" (dict "context" $ "secret" . "value" "global.s3.existingSecret" "keys" (list "access-key" "secret-key")) -}}
{{- end -}}
{{- end -}}
