{{/* model-service.fullname: name of the Service, Deployment and whatever there is one of; with "suffix" of the others. */}}
{{- define "model-service.fullname" -}}
{{- include "fairlead.fullname" (dict "context" .context "component" .suffix) -}}
{{- end -}}

{{/* model-service.meta: metadata of an object; "suffix" ends its name, "component" is server unless said. */}}
{{- define "model-service.meta" -}}
{{- $name := include "model-service.fullname" . -}}
{{- include "fairlead.metadata" (dict "context" .context "component" (.component | default "server") "name" $name) -}}
{{- end -}}

{{- define "model-service.selector" -}}
{{- include "fairlead.selectorLabels" (dict "context" . "component" "server") -}}
{{- end -}}

{{/* model-service.model: the name that clients call the model by, which is a label of its metrics too. */}}
{{- define "model-service.model" -}}
{{- .Values.model.name | default (include "model-service.fullname" (dict "context" .)) -}}
{{- end -}}

{{- define "model-service.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- .Values.serviceAccount.name | default (include "model-service.fullname" (dict "context" .)) -}}
{{- else -}}
{{- .Values.serviceAccount.name | default "default" -}}
{{- end -}}
{{- end -}}

{{/*
model-service.place: which bundle a pod serves, as YAML: {source, digest, version, bundle (its folder, by digest, so that a shared volume holds several
versions), env}. "holder" is the ConfigMap that says so, for the container to read at its start; without one the values say it.
*/}}
{{- define "model-service.place" -}}
{{- if .holder -}}
source: $(MODEL_SOURCE)
digest: $(MODEL_DIGEST)
version: $(MODEL_VERSION)
bundle: /bundles/$(MODEL_DIGEST)
env:
  {{- range $key := list "source" "digest" "version" }}
  - name: MODEL_{{ upper $key }}
    valueFrom: {configMapKeyRef: {name: {{ $.holder }}, key: {{ $key }}}}
  {{- end }}
{{- else -}}
{{- $model := .context.Values.model -}}
source: {{ $model.source | quote }}
digest: {{ $model.digest | quote }}
version: {{ include "model-service.version" .context | quote }}
bundle: /bundles/{{ $model.digest | default "unpinned" | trunc 16 }}
env: []
{{- end -}}
{{- end -}}

{{/* model-service.sharedLog: the platform's prediction log, for a part of its release that names no folder (an empty one is none). */}}
{{- define "model-service.sharedLog" -}}
{{- if and .Values.storage.embedded (not (hasKey (.Values.config.predictions | default dict) "folder")) -}}
s3://{{ (.Values.global.s3 | default dict).bucket | default "fairlead" }}/predictions
{{- end -}}
{{- end -}}

{{/* model-service.salt: Secret and key of the salt of the prediction log; an empty name: none. */}}
{{- define "model-service.salt" -}}
{{- $salt := .Values.secrets.salt -}}
{{- if and (not $salt.name) (include "model-service.sharedLog" .) -}}{{- $salt = dict "name" (include "fairlead.saltSecret" (dict "context" .)) "key" "salt" -}}{{- end -}}
{{- toYaml $salt -}}
{{- end -}}

{{/* model-service.logsToS3: "true" when predictions are logged, or adapters kept, in S3; the server then has the storage's credentials too. */}}
{{- define "model-service.logsToS3" -}}
{{- if hasPrefix "s3://" ((.Values.config.predictions | default dict).folder | default (include "model-service.sharedLog" .)) -}}true
{{- else if hasPrefix "s3://" ((.Values.config.adapters | default dict).folder | default "") -}}true{{- end -}}
{{- end -}}

{{/* model-service.redis: address by part of config, of those that use Redis (adapters, drawing, budgets); "": it stands in a Secret. */}}
{{- define "model-service.redis" -}}
{{- $found := dict -}}
{{- range $part := list "adapters" "drawing" "budgets" -}}
{{- $redis := (index $.Values.config $part | default dict).redis | default "" -}}
{{- if or $redis (index $.Values.secrets $part).name -}}{{- $found = set $found $part $redis -}}{{- end -}}
{{- end -}}
{{- toYaml $found -}}
{{- end -}}

{{/* model-service.needs: which guarded parts of a platform a pod talks to, see fairlead.podLabels. */}}
{{- define "model-service.needs" -}}
{{- $needs := list -}}
{{- if or (hasPrefix "s3://" .Values.model.source) (include "model-service.logsToS3" .) -}}{{- $needs = append $needs "s3" -}}{{- end -}}
{{- if or (hasPrefix "redis" (.Values.config.online | default "")) (hasPrefix "redis" (.Values.config.vector_store | default "")) (include "model-service.redis" . | fromYaml) -}}{{- $needs = append $needs "redis" -}}{{- end -}}
{{- toJson $needs -}}
{{- end -}}

{{/* model-service.storage: {endpoint, secret} of S3; both empty: AWS with the pod's own identity. */}}
{{- define "model-service.storage" -}}
{{- $storage := .Values.storage -}}
{{- $endpoint := $storage.endpoint -}}
{{- $secret := $storage.existingSecret -}}
{{- if and (not $endpoint) (or $storage.embedded ((.Values.global.s3 | default dict).endpoint)) -}}
{{- $part := include "fairlead.part" (dict "context" . "part" "s3") | fromYaml -}}
{{- $endpoint = printf "%s://%s:%d" $part.scheme $part.host ($part.port | int) -}}
{{- $secret = $secret | default (include "fairlead.s3Secret" (dict "context" . "who" "models")) -}}
{{- end -}}
endpoint: {{ $endpoint | quote }}
secret: {{ $secret | quote }}
{{- end -}}

{{/* model-service.storageEnv: the standard AWS variables, for the containers that fetch, and the server that logs. */}}
{{- define "model-service.storageEnv" -}}
{{- include "model-service.storageEnvOf" (dict "context" . "secret" (include "model-service.storage" . | fromYaml).secret) -}}
{{- end -}}

{{/* model-service.storageEnvOf: those of a client with the key in "secret". */}}
{{- define "model-service.storageEnvOf" -}}
{{- $secret := .secret -}}
{{- with .context -}}
{{- $storage := include "model-service.storage" . | fromYaml -}}
- {name: AWS_REGION, value: {{ .Values.storage.region | quote }}}
{{- with $storage.endpoint }}
- {name: AWS_ENDPOINT_URL, value: {{ . | quote }}}
{{- end }}
{{- if $secret }}
{{ include "fairlead.secretEnv" (dict "name" "AWS_ACCESS_KEY_ID" "secret" $secret "key" .Values.storage.accessKeyKey) }}
{{ include "fairlead.secretEnv" (dict "name" "AWS_SECRET_ACCESS_KEY" "secret" $secret "key" .Values.storage.secretKeyKey) }}
{{- end }}
{{- end -}}
{{- end -}}

{{/* model-service.fetch: the container that brings the bundle of "place" and proves every byte of it. */}}
{{- define "model-service.fetch" -}}
{{- $place := .place -}}
{{- with .context -}}
- name: fetch
  {{- include "fairlead.container" (dict "context" . "values" (dict "extraEnvFrom" list) "image" (include "model-service.image" . | fromYaml) "resources" .Values.resources) | nindent 2 }}
  command:
    - python
    - -m
    - services.server.fetch
    - --source={{ $place.source }}
    - --to={{ $place.bundle }}
    {{- with $place.digest }}
    - --digest={{ . }}
    {{- end }}
    {{- with .Values.model.waitSeconds }}
    - --wait={{ . }}
    {{- end }}
  env:
    {{- with $place.env }}{{ toYaml . | nindent 4 }}{{ end }}
    {{- include "model-service.storageEnv" . | nindent 4 }}
    {{- with include "fairlead.extraEnv" (dict "context" . "values" dict) }}{{ . | nindent 4 }}{{ end }}
  volumeMounts:
    - {name: bundles, mountPath: /bundles}
    - {name: tmp, mountPath: /tmp}
    {{- with include "fairlead.extraMounts" (dict "context" . "values" .Values) }}{{ . | nindent 4 }}{{ end }}
{{- end -}}
{{- end -}}

{{/* model-service.image: the image's values, with the tag of the GPU variant where GPUs are asked for, and are not those of vLLM. */}}
{{- define "model-service.image" -}}
{{- $image := deepCopy .Values.image -}}
{{- if and .Values.gpu.count (not $image.tag) (not (include "model-service.vllm" .)) -}}
{{- $_ := set $image "tag" (printf "%s-gpu" .Chart.AppVersion) -}}
{{- end -}}
{{- toYaml $image -}}
{{- end -}}

{{/*
model-service.configEnv: `config` as the service's environment variables: config.predictions.sample is
FAIRLEAD_SERVICE_PREDICTIONS__SAMPLE. Values are JSON, which keeps "1e5" a string. "prefix" is for the recursion.
*/}}
{{- define "model-service.configEnv" -}}
{{- $prefix := .prefix | default "FAIRLEAD_SERVICE_" -}}
{{- range $key, $value := .config }}
{{- if kindIs "map" $value }}
{{- include "model-service.configEnv" (dict "config" $value "prefix" (printf "%s%s__" $prefix (upper $key))) }}
{{- else if not (kindIs "invalid" $value) }}
{{ $prefix }}{{ upper $key }}: {{ toJson $value | quote }}
{{- end }}
{{- end }}
{{- end -}}

{{/* model-service.grace: seconds a pod may take to end, never less than the service's own times. */}}
{{- define "model-service.grace" -}}
{{- $own := add (ceil (.Values.config.drain_seconds | default 0)) (.Values.config.graceful_seconds | default 30) -}}
{{- .Values.terminationGracePeriodSeconds | default (add $own 10) -}}
{{- end -}}

{{/* model-service.minimum: the fewest pods there are. */}}
{{- define "model-service.minimum" -}}
{{- ternary .Values.autoscaling.minReplicas .Values.replicaCount .Values.autoscaling.enabled | int -}}
{{- end -}}

{{/* model-service.choice: "auto" decided by whether the cluster has API "api"; "yes" and "no" are what it stands for. */}}
{{- define "model-service.choice" -}}
{{- if ne .value "auto" -}}{{- .value -}}
{{- else if .context.Capabilities.APIVersions.Has .api -}}{{- .yes -}}
{{- else -}}{{- .no -}}
{{- end -}}
{{- end -}}

{{- define "model-service.scrape" -}}
{{- include "model-service.choice" (dict "context" . "value" .Values.monitoring.scrape "api" "monitoring.coreos.com/v1/PodMonitor" "yes" "PodMonitor" "no" "annotations") -}}
{{- end -}}

{{/* model-service.metric: what the autoscaler looks at: inflight, queue or cpu. */}}
{{- define "model-service.metric" -}}
{{- include "model-service.choice" (dict "context" . "value" .Values.autoscaling.metric "api" "custom.metrics.k8s.io/v1beta1" "yes" "inflight" "no" "cpu") -}}
{{- end -}}

{{/* model-service.keys: Secret with the hashes of API keys, and Secret with the key of `helm test`; empty names: none. */}}
{{- define "model-service.keys" -}}
{{- $given := .Values.secrets.keys -}}
{{- $made := and (not $given.name) $given.generate -}}
{{- $name := include "model-service.fullname" (dict "context" . "suffix" "keys") -}}
made: {{ $made }}
hashes: {{ ternary (dict "name" $name "key" "keys") (pick $given "name" "key") $made | toJson }}
test: {{ ternary (dict "name" $name "key" "key") .Values.secrets.test $made | toJson }}
{{- end -}}
