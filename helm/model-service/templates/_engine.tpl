{{/* model-service.vllm: "true" where vLLM writes the answers, in a container beside the server's. */}}
{{- define "model-service.vllm" -}}
{{- if eq .Values.engine.kind "vllm" -}}true{{- end -}}
{{- end -}}

{{/* model-service.served: what vLLM calls the weights of "place", and the server asks for. */}}
{{- define "model-service.served" -}}
{{- printf "%s@%s" (include "model-service.model" .context) (.place.digest | default "unpinned") -}}
{{- end -}}

{{/* model-service.engineResources: `engine.resources`, and the GPUs as limits. */}}
{{- define "model-service.engineResources" -}}
{{- $resources := deepCopy .Values.engine.resources -}}
{{- $_ := set $resources.limits .Values.gpu.resource .Values.gpu.count -}}
{{- toYaml $resources -}}
{{- end -}}

{{/* model-service.engineEnv: what the server is told of vLLM. */}}
{{- define "model-service.engineEnv" -}}
- {name: FAIRLEAD_SERVICE_ENGINE__URL, value: '"http://127.0.0.1:8000"'}
- {name: FAIRLEAD_SERVICE_ENGINE__MODEL, value: {{ include "model-service.served" . | toJson | quote }}}
- {name: FAIRLEAD_SERVICE_ENGINE__WAIT_SECONDS, value: {{ .context.Values.engine.startSeconds | quote }}}
{{- if (.context.Values.config.adapters | default dict).folder }}
- {name: FAIRLEAD_SERVICE_ENGINE__ADAPTERS, value: '"/adapters"'}
{{- end }}
{{- end -}}

{{/*
model-service.engine: vLLM with the bundle of "place", on an address that this pod alone has; of several nodes the first one answers, and the others,
"worker" true, compute. What it writes, compiled kernels above all, is in /cache. It asks nobody: weights come with the bundle.
*/}}
{{- define "model-service.engine" -}}
{{- $place := .place -}}
{{- $worker := .worker | default false -}}
{{- with .context -}}
{{- $engine := .Values.engine -}}
{{- $adapters := .Values.config.adapters | default dict -}}
- name: engine
  {{- include "fairlead.container" (dict "context" . "values" (dict "extraEnvFrom" list) "image" $engine.image "resources" (include "model-service.engineResources" . | fromYaml)) | nindent 2 }}
  command: [vllm, serve]
  args:
    - {{ $place.bundle }}/model/safetensors
    - --served-model-name={{ include "model-service.served" (dict "context" . "place" $place) }}
    - --host=127.0.0.1
    - --port=8000
    - --tensor-parallel-size={{ $engine.tensorParallel | int }}
    - --pipeline-parallel-size={{ $engine.pipelineParallel | int }}
    - --gpu-memory-utilization={{ $engine.memoryShare }}
    - --max-num-seqs={{ .Values.config.slots | default 4 | int }}
    {{- with .Values.config.window }}
    - --max-model-len={{ . | int }}
    {{- end }}
    - --dtype={{ $engine.dtype }}
    - --generation-config=vllm
    - --enable-prefix-caching
    - '--structured-outputs-config={"backend": "guidance"}'
    - --no-enable-log-requests
    - --disable-uvicorn-access-log
    {{- if $adapters.folder }}
    - --enable-lora
    - --max-loras={{ $adapters.loaded | default 16 | int }}
    - --max-cpu-loras={{ $adapters.loaded | default 16 | int }}
    - --max-lora-rank={{ $engine.maxRank | int }}
    {{- end }}
    {{- if gt ($engine.nodes | int) 1 }}
    - --distributed-executor-backend=mp
    - --nnodes={{ $engine.nodes | int }}
    - --node-rank=$(LWS_WORKER_INDEX)
    - --master-addr=$(LWS_LEADER_ADDRESS)
    {{- if $worker }}
    - --headless
    {{- end }}
    {{- end }}
    {{- range $engine.extraArgs }}
    - {{ . | quote }}
    {{- end }}
  env:
    {{- with $place.env }}{{ toYaml . | nindent 4 }}{{ end }}
    {{- range $name, $value := dict "HOME" "/tmp" "USER" "vllm" "HF_HUB_OFFLINE" "1" "TRANSFORMERS_OFFLINE" "1" "VLLM_NO_USAGE_STATS" "1" "DO_NOT_TRACK" "1" "XDG_CACHE_HOME" "/cache" "XDG_CONFIG_HOME" "/cache/config" "VLLM_CACHE_ROOT" "/cache/vllm" "TRITON_CACHE_DIR" "/cache/triton" "TORCHINDUCTOR_CACHE_DIR" "/cache/inductor" "CUDA_CACHE_PATH" "/cache/cuda" "FLASHINFER_WORKSPACE_BASE" "/cache" "NUMBA_CACHE_DIR" "/cache/numba" "OUTLINES_CACHE_DIR" "/cache/outlines" }}
    - {name: {{ $name }}, value: {{ quote $value }}}
    {{- end }}
    {{- if $adapters.folder }}
    - {name: VLLM_ALLOW_RUNTIME_LORA_UPDATING, value: "True"}
    {{- end }}
    {{- with include "fairlead.extraEnv" (dict "context" . "values" (dict "extraEnv" $engine.extraEnv)) }}{{ . | nindent 4 }}{{ end }}
  {{- if not $worker }}
  {{- $look := list "python3" "-c" "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/health', timeout=4)" }}
  startupProbe: {exec: {command: {{ toJson $look }}}, periodSeconds: 5, timeoutSeconds: 10, failureThreshold: {{ div ($engine.startSeconds | int) 5 }}}
  livenessProbe: {exec: {command: {{ toJson $look }}}, periodSeconds: 15, timeoutSeconds: 10, failureThreshold: 6}
  readinessProbe: {exec: {command: {{ toJson $look }}}, periodSeconds: 10, timeoutSeconds: 10, failureThreshold: 3}
  {{- end }}
  volumeMounts:
    - {name: bundles, mountPath: /bundles, readOnly: true}
    - {name: engine-tmp, mountPath: /tmp}
    - {name: engine-cache, mountPath: /cache}
    - {name: shm, mountPath: /dev/shm}
    {{- if $adapters.folder }}
    - {name: adapters, mountPath: /adapters, readOnly: true}
    {{- end }}
    {{- with include "fairlead.extraMounts" (dict "context" . "values" dict) }}{{ . | nindent 4 }}{{ end }}
{{- end -}}
{{- end -}}

{{/* model-service.engineVolumes: those of the container of vLLM, and shared memory, by which its processes pass tensors. */}}
{{- define "model-service.engineVolumes" -}}
- {name: engine-tmp, emptyDir: {sizeLimit: 1Gi}}
- {name: engine-cache, emptyDir: {sizeLimit: {{ .Values.engine.cacheSize }}}}
{{- if (.Values.config.adapters | default dict).folder }}
- {name: adapters, emptyDir: {sizeLimit: 4Gi}}
{{- end }}
{{- end -}}

{{/* model-service.worker: a pod of a group that computes for its first one, as LeaderWorkerSet makes it. */}}
{{- define "model-service.worker" -}}
{{- $place := include "model-service.place" (dict "context" .) | fromYaml -}}
{{- $filled := dict "context" . "place" $place "worker" true -}}
{{- $pod := dict "context" . "component" "engine-worker" "values" (include "model-service.scheduling" . | fromYaml)
    "serviceAccountName" (include "model-service.serviceAccountName" .) "grace" 30 -}}
metadata:
  labels:
    {{- include "fairlead.podLabels" (dict "context" . "component" "engine-worker" "values" .Values "needs" (include "model-service.needs" . | fromJsonArray)) | nindent 4 }}
spec:
  {{- include "fairlead.podSpec" $pod | nindent 2 }}
  initContainers:
    {{- include "model-service.fetch" $filled | nindent 4 }}
  containers:
    {{- include "model-service.engine" $filled | nindent 4 }}
  volumes:
    - name: bundles
      {{- include "model-service.cacheVolume" . | nindent 6 }}
    - {name: tmp, emptyDir: {sizeLimit: 1Gi}}
    - {name: shm, emptyDir: {medium: Memory, sizeLimit: {{ .Values.gpu.shm }}}}
    {{- include "model-service.engineVolumes" . | nindent 4 }}
    {{- with include "fairlead.extraVolumes" (dict "context" . "values" .Values) }}{{ . | nindent 4 }}{{ end }}
{{- end -}}

{{- define "model-service.validate.engine" -}}
{{- $engine := .Values.engine -}}
{{- if include "model-service.vllm" . -}}
{{- if ne .Values.model.modality "chat" -}}
{{- fail (printf "engine.kind vllm is for chats, and model.modality is %s. Fix: leave engine.kind at llamacpp" .Values.model.modality) -}}
{{- end -}}
{{- if not .Values.gpu.count -}}
{{- fail "engine.kind vllm computes on GPUs. Fix: set gpu.count to those of a pod" -}}
{{- end -}}
{{- $have := mul (.Values.gpu.count | int) ($engine.nodes | int) -}}
{{- if ne (mul ($engine.tensorParallel | int) ($engine.pipelineParallel | int) | int) ($have | int) -}}
{{- fail (printf "engine.tensorParallel %d x engine.pipelineParallel %d is not gpu.count %d x engine.nodes %d. Fix: set engine.tensorParallel to the GPUs of a pod, and engine.pipelineParallel to engine.nodes" ($engine.tensorParallel | int) ($engine.pipelineParallel | int) (.Values.gpu.count | int) ($engine.nodes | int)) -}}
{{- end -}}
{{- if hasKey .Values.config "engine" -}}
{{- fail "config.engine is set by the chart where engine.kind is vllm. Fix: leave config.engine" -}}
{{- end -}}
{{- if and (gt ($engine.nodes | int) 1) (or .Values.rollouts.enabled .Values.autoscaling.enabled) -}}
{{- fail "engine.nodes makes groups of pods, which rollouts and autoscaling do not count. Fix: leave rollouts.enabled and autoscaling.enabled at false" -}}
{{- end -}}
{{- if and (gt ($engine.nodes | int) 1) (.Values.config.adapters | default dict).folder -}}
{{- fail "config.adapters.folder with engine.nodes: each pod of a group would need the files of adapters, which are in the first one. Fix: leave config.adapters.folder, or set engine.nodes to 1" -}}
{{- end -}}
{{- else if gt ($engine.nodes | int) 1 -}}
{{- fail "engine.nodes is for engine.kind vllm. Fix: set engine.kind" -}}
{{- end -}}
{{- end -}}
