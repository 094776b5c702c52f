{{/* model-service.version: what answers report. */}}
{{- define "model-service.version" -}}
{{- .Values.model.version | toString | default (.Values.model.digest | default "unpinned" | trunc 12) -}}
{{- end -}}

{{/* model-service.scheduling: what fairlead.scheduling reads, with what a GPU needs added. */}}
{{- define "model-service.scheduling" -}}
{{- $values := pick .Values "nodeSelector" "tolerations" "affinity" "topologySpreadConstraints" "priorityClassName" -}}
{{- if .Values.gpu.count -}}
{{- $taint := dict "key" .Values.gpu.resource "operator" "Exists" "effect" "NoSchedule" -}}
{{- $_ := set $values "tolerations" (append $values.tolerations $taint) -}}
{{- $_ := set $values "runtimeClassName" .Values.gpu.runtimeClassName -}}
{{- end -}}
{{- $_ := set $values "replicas" (include "model-service.minimum" . | int) -}}
{{- toYaml $values -}}
{{- end -}}

{{/* model-service.resources: `resources`, and the GPUs as limits. */}}
{{- define "model-service.resources" -}}
{{- $resources := deepCopy .Values.resources -}}
{{- if and .Values.gpu.count (not (include "model-service.vllm" .)) -}}
{{- $_ := set $resources.limits .Values.gpu.resource .Values.gpu.count -}}
{{- end -}}
{{- toYaml $resources -}}
{{- end -}}

{{/* model-service.cacheVolume: the pod's own folder, or a claim. */}}
{{- define "model-service.cacheVolume" -}}
{{- if eq .Values.cache.type "claim" -}}
persistentVolumeClaim: {claimName: {{ .Values.cache.existingClaim | default (include "model-service.claim" .) }}}
{{- else -}}
emptyDir: {sizeLimit: {{ .Values.cache.size }}}
{{- end -}}
{{- end -}}

{{/*
model-service.claim: name of the chart's claim. What cannot be changed on an existing claim is part of it: a changed value
makes a new one, and as a cache it is filled again.
*/}}
{{- define "model-service.claim" -}}
{{- $cache := .Values.cache -}}
{{- $fixed := printf "%s %s %s" $cache.storageClass (join "," $cache.accessModes) (toString $cache.size) -}}
{{- include "model-service.fullname" (dict "context" . "suffix" (printf "cache-%s" ($fixed | sha256sum | trunc 6))) -}}
{{- end -}}

{{/* model-service.server: the container that answers, with the bundle of "place". At SIGTERM it is not ready for drain_seconds before the port closes. */}}
{{- define "model-service.server" -}}
{{- $place := .place -}}
{{- with .context -}}
{{- $config := dict "configMapRef" (dict "name" (include "model-service.fullname" (dict "context" .))) -}}
{{- $from := dict "extraEnvFrom" (prepend .Values.extraEnvFrom $config) -}}
- name: server
  {{- include "fairlead.container" (dict "context" . "values" $from "image" (include "model-service.image" . | fromYaml) "resources" (include "model-service.resources" . | fromYaml)) | nindent 2 }}
  command: [python, -m, services.server.launch, {{ .Values.model.modality }}, {{ printf "--host=%s" (include "fairlead.bind" (dict "context" .)) | quote }}, --port=3000]
  env:
    {{- with $place.env }}{{ toYaml . | nindent 4 }}{{ end }}
    - {name: FAIRLEAD_SERVICE_BUNDLE, value: {{ toJson $place.bundle | quote }}}
    - {name: FAIRLEAD_SERVICE_NAME, value: {{ include "model-service.model" . | toJson | quote }}}
    - {name: FAIRLEAD_SERVICE_VERSION, value: {{ toJson $place.version | quote }}}
    - {name: OMP_NUM_THREADS, value: {{ .Values.config.threads | default 1 | quote }}}
    - name: FAIRLEAD_SERVICE_ASKED__MILLICORES
      valueFrom: {resourceFieldRef: {resource: requests.cpu, divisor: 1m}}
    - name: FAIRLEAD_SERVICE_ASKED__MEMORY_BYTES
      valueFrom: {resourceFieldRef: {resource: requests.memory, divisor: "1"}}
    {{- with .Values.gpu.count }}
    - {name: FAIRLEAD_SERVICE_ASKED__GPUS, value: {{ . | quote }}}
    {{- end }}
    {{- if and .Values.config.grpc_port (not .Values.config.grpc_host) }}
    - {name: FAIRLEAD_SERVICE_GRPC_HOST, value: {{ include "fairlead.bind" (dict "context" .) | toJson | quote }}}
    {{- end }}
    {{- if include "model-service.vllm" . }}
    {{- include "model-service.engineEnv" (dict "context" . "place" $place) | nindent 4 }}
    {{- end }}
    {{- if include "model-service.logsToS3" . }}
    {{- include "model-service.storageEnv" . | nindent 4 }}
    {{- end }}
    {{- with include "model-service.sharedLog" $.context }}
    - {name: FAIRLEAD_SERVICE_PREDICTIONS__FOLDER, value: {{ toJson . | quote }}}
    {{- end }}
    {{- $salt := include "model-service.salt" $.context | fromYaml }}
    {{- if $salt.name }}
    {{- include "fairlead.secretEnv" (dict "name" "FAIRLEAD_SERVICE_PREDICTIONS__SALT" "secret" $salt.name "key" $salt.key) | nindent 4 }}
    {{- end }}
    {{- range $part := list "adapters" "drawing" "budgets" }}
    {{- with index $.context.Values.secrets $part }}
    {{- if .name }}
    {{- include "fairlead.secretEnv" (dict "name" (printf "FAIRLEAD_SERVICE_%s__REDIS" (upper $part)) "secret" .name "key" .key) | nindent 4 }}
    {{- end }}
    {{- end }}
    {{- end }}
    {{- with .Values.secrets.online.name }}
    {{- include "fairlead.secretEnv" (dict "name" "FAIRLEAD_REDIS_PASSWORD" "secret" . "key" $.context.Values.secrets.online.key) | nindent 4 }}
    {{- end }}
    {{- if (include "model-service.keys" . | fromYaml).hashes.name }}
    - {name: FAIRLEAD_SERVICE_KEYS_FILE, value: '"/etc/fairlead/keys"'}
    {{- end }}
    {{- with include "fairlead.extraEnv" (dict "context" . "values" .Values) }}{{ . | nindent 4 }}{{ end }}
  ports:
    - {name: http, containerPort: 3000}
    {{- with .Values.config.grpc_port }}
    - {name: grpc, containerPort: {{ . | int }}}
    {{- end }}
  {{- include "fairlead.httpProbes" (dict "started" "/startupz" "ready" "/readyz" "live" "/livez" "startSeconds" (ternary (add .Values.engine.startSeconds 300) 300 (eq .Values.engine.kind "vllm"))) | nindent 2 }}
  volumeMounts:
    - {name: bundles, mountPath: /bundles, readOnly: true}
    - {name: tmp, mountPath: /tmp}
    {{- if and (include "model-service.vllm" .) (.Values.config.adapters | default dict).folder }}
    - {name: adapters, mountPath: /adapters}
    {{- else if and .Values.gpu.count (not (include "model-service.vllm" .)) }}
    - {name: shm, mountPath: /dev/shm}
    {{- end }}
    {{- if (include "model-service.keys" . | fromYaml).hashes.name }}
    - {name: keys, mountPath: /etc/fairlead, readOnly: true}
    {{- end }}
    {{- with include "fairlead.extraMounts" (dict "context" . "values" .Values) }}{{ . | nindent 4 }}{{ end }}
{{- end -}}
{{- end -}}
