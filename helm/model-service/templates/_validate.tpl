{{/* model-service.validate: what cannot work, with the key that mends it; tests/helm/test_model_service.py has each message. */}}
{{- define "model-service.validate" -}}
{{- $values := .Values -}}
{{- range $old, $new := dict "bundle" "model.source" "modality" "model.modality" "port" "service.port" "replicas" "replicaCount" "env" "extraEnv" -}}
{{- if hasKey $values $old -}}
{{- fail (printf "%s is not a key of this chart. Fix: use %s (see UPGRADING.md)" $old $new) -}}
{{- end -}}
{{- end -}}
{{- $name := include "model-service.fullname" (dict "context" .) -}}
{{- include "fairlead.requireName" (dict "name" $name "fix" (printf "set fullnameOverride%s" (ternary " to another name" "" (not (empty .Values.fullnameOverride))))) -}}
{{- include "model-service.validate.model" . -}}
{{- include "model-service.validate.config" . -}}
{{- include "model-service.validate.engine" . -}}
{{- include "model-service.validate.scale" . -}}
{{- include "model-service.validate.rollouts" . -}}
{{- if $values.secrets.check -}}
{{- include "model-service.validate.secrets" . -}}
{{- end -}}
{{- end -}}

{{- define "model-service.validate.model" -}}
{{- $model := .Values.model -}}
{{- if not $model.source -}}
{{- fail "no model to serve. Fix: set model.source and model.digest; `fairlead deploy NAME` does" -}}
{{- end -}}
{{- if and (not $model.digest) (not $model.waitSeconds) -}}
{{- fail "model.digest is empty, so pods could serve different bundles. Fix: set it to the sha256 of bundle.json (`fairlead models`); model.waitSeconds is for demonstrations" -}}
{{- end -}}
{{- if and .Values.storage.embedded .Values.storage.endpoint -}}
{{- fail "storage.embedded and storage.endpoint are both set. Fix: leave one" -}}
{{- end -}}
{{- if and (include "model-service.storage" . | fromYaml).endpoint (not (include "model-service.storage" . | fromYaml).secret) -}}
{{- fail "storage.endpoint is set without credentials. Fix: set storage.existingSecret to a Secret with the keys of storage.accessKeyKey and storage.secretKeyKey" -}}
{{- end -}}
{{- if and (eq .Values.cache.type "pod") .Values.cache.existingClaim -}}
{{- fail "cache.existingClaim is set, and cache.type is pod. Fix: set cache.type to claim" -}}
{{- end -}}
{{- end -}}

{{- define "model-service.validate.config" -}}
{{- $config := .Values.config -}}
{{- range $key, $fix := dict "bundle" "model.source and model.digest" "name" "model.name" "version" "model.version" "keys_file" "secrets.keys" -}}
{{- if hasKey $config $key -}}
{{- fail (printf "config.%s is set by the chart. Fix: use %s" $key $fix) -}}
{{- end -}}
{{- end -}}
{{- $predictions := $config.predictions | default dict -}}
{{- if $predictions.salt -}}
{{- fail "config.predictions.salt is a secret, and values are not. Fix: put it in a Secret and set secrets.salt.name" -}}
{{- end -}}
{{- $adapters := $config.adapters | default dict -}}
{{- range $part, $redis := include "model-service.redis" . | fromYaml -}}
{{- if contains "@" $redis -}}
{{- fail (printf "config.%s.redis has a password, and values are not secret. Fix: put the address in a Secret and set secrets.%s.name" $part $part) -}}
{{- end -}}
{{- if and $.Values.networkPolicy.enabled (not $redis) (not (index $.Values.networkPolicy $part)) -}}
{{- fail (printf "secrets.%s.name hides where Redis is from the network policy. Fix: set networkPolicy.%s to its peers" $part $part) -}}
{{- end -}}
{{- end -}}
{{- if and $adapters.folder (not (include "model-service.salt" . | fromYaml).name) -}}
{{- fail "config.adapters.folder is set without a salt, by which adapters are found. Fix: set secrets.salt.name" -}}
{{- end -}}
{{- if and (hasPrefix "s3://" ($adapters.folder | default "")) (not $adapters.redis) (not .Values.secrets.adapters.name) -}}
{{- fail "config.adapters.folder is in S3, which takes too long to be asked for every request. Fix: set secrets.adapters.name or config.adapters.redis" -}}
{{- end -}}
{{- if and $predictions.folder (hasPrefix "/" $predictions.folder) -}}
{{- $mounted := hasPrefix "/tmp/" (printf "%s/" $predictions.folder) -}}
{{- range .Values.extraVolumeMounts -}}
{{- if hasPrefix (printf "%s/" .mountPath) (printf "%s/" $predictions.folder) -}}{{- $mounted = true -}}{{- end -}}
{{- end -}}
{{- if not $mounted -}}
{{- fail (printf "config.predictions.folder %s is on the container's root, which is read-only. Fix: mount a volume there with extraVolumes and extraVolumeMounts" $predictions.folder) -}}
{{- end -}}
{{- end -}}
{{- $own := add (ceil ($config.drain_seconds | default 0)) ($config.graceful_seconds | default 30) -}}
{{- if le (include "model-service.grace" . | int) ($own | int) -}}
{{- fail (printf "terminationGracePeriodSeconds %s would kill requests in flight: config.drain_seconds and graceful_seconds are %d together. Fix: leave it empty, or set more" (include "model-service.grace" .) ($own | int)) -}}
{{- end -}}
{{- end -}}

{{- define "model-service.validate.scale" -}}
{{- $scaling := .Values.autoscaling -}}
{{- if and $scaling.enabled (gt ($scaling.minReplicas | int) ($scaling.maxReplicas | int)) -}}
{{- fail (printf "autoscaling.minReplicas %d is more than maxReplicas %d. Fix: raise autoscaling.maxReplicas" ($scaling.minReplicas | int) ($scaling.maxReplicas | int)) -}}
{{- end -}}
{{- if and $scaling.enabled (eq (include "model-service.metric" .) "cpu") (not .Values.resources.requests.cpu) -}}
{{- fail "autoscaling on cpu needs a request to compare with. Fix: set resources.requests.cpu, or autoscaling.metric to inflight" -}}
{{- end -}}
{{- $budget := .Values.podDisruptionBudget -}}
{{- $stay := ne (toString $budget.minAvailable) "" -}}
{{- if and $budget.enabled $stay (ne (toString $budget.maxUnavailable) "") -}}
{{- fail "podDisruptionBudget has minAvailable and maxUnavailable; Kubernetes takes one. Fix: set podDisruptionBudget.maxUnavailable to \"\"" -}}
{{- end -}}
{{- if and $budget.enabled (not $stay) (eq (toString $budget.maxUnavailable) "") -}}
{{- fail "podDisruptionBudget allows nothing. Fix: set maxUnavailable or minAvailable, or podDisruptionBudget.enabled to false" -}}
{{- end -}}
{{- if and $budget.enabled $stay (not (contains "%" (toString $budget.minAvailable))) (gt (include "model-service.minimum" . | int) 1) (ge ($budget.minAvailable | int) (include "model-service.minimum" . | int)) -}}
{{- fail (printf "podDisruptionBudget.minAvailable %d of %s pods keeps every node from being emptied. Fix: set podDisruptionBudget.maxUnavailable: 1 and minAvailable to \"\"" ($budget.minAvailable | int) (include "model-service.minimum" .)) -}}
{{- end -}}
{{- if and (eq .Values.cache.type "claim") (not .Values.cache.existingClaim) (eq (toJson .Values.cache.accessModes) "[\"ReadWriteOncePod\"]") -}}
{{- fail "cache.accessModes ReadWriteOncePod admits one pod, and an upgrade needs two. Fix: use ReadWriteMany, or ReadWriteOnce on one node" -}}
{{- end -}}
{{- end -}}

{{- define "model-service.validate.secrets" -}}
{{- if and .Values.secrets.test.name (not .Values.secrets.keys.name) -}}
{{- fail "secrets.test.name is set without secrets.keys.name: what is generated needs none. Fix: set secrets.keys.name too, or leave secrets.test.name empty" -}}
{{- end -}}
{{- $storage := include "model-service.storage" . | fromYaml -}}
{{- if and .Values.storage.existingSecret (has "s3" (include "model-service.needs" . | fromJsonArray)) -}}
{{- include "fairlead.requireSecret" (dict "context" . "value" "storage.existingSecret" "secret" $storage.secret "keys" (list .Values.storage.accessKeyKey .Values.storage.secretKeyKey)) -}}
{{- end -}}
{{- with .Values.rollouts.storageSecret -}}
{{- include "fairlead.requireSecret" (dict "context" $ "value" "rollouts.storageSecret" "secret" . "keys" (list $.Values.storage.accessKeyKey $.Values.storage.secretKeyKey)) -}}
{{- end -}}
{{- range $part := list "salt" "online" "adapters" "drawing" "budgets" "keys" -}}
{{- $secret := index $.Values.secrets $part -}}
{{- if $secret.name -}}
{{- include "fairlead.requireSecret" (dict "context" $ "value" (printf "secrets.%s.name" $part) "secret" $secret.name "keys" (list $secret.key)) -}}
{{- end -}}
{{- end -}}
{{- end -}}
