{{/*
model-service.deployment: the pods that answer; "slot" is a or b where a release has two (fairlead.io/slot), whose number of pods and whose bundle
are the keeper's.
*/}}
{{- define "model-service.deployment" -}}
{{- $slot := .slot | default "" -}}
{{- $component := ternary "slot" "server" (ne $slot "") -}}
{{- with .context -}}
{{- if gt (.Values.engine.nodes | int) 1 }}
# Groups of pods, each of which executes the model together; the first one of a group answers.
apiVersion: leaderworkerset.x-k8s.io/v1
kind: LeaderWorkerSet
metadata:
  {{- include "model-service.meta" (dict "context" .) | nindent 2 }}
spec:
  replicas: {{ .Values.replicaCount }}
  startupPolicy: LeaderCreated
  rolloutStrategy: {type: RollingUpdate, rollingUpdateConfiguration: {maxSurge: 1, maxUnavailable: 0}}
  leaderWorkerTemplate:
    size: {{ .Values.engine.nodes | int }}
    restartPolicy: RecreateGroupOnPodRestart
    leaderTemplate: {{- include "model-service.pod" (dict "context" .) | nindent 6 }}
    workerTemplate: {{- include "model-service.worker" . | nindent 6 }}
{{- else }}
apiVersion: apps/v1
kind: Deployment
metadata:
  {{- include "model-service.meta" (dict "context" . "suffix" $slot "component" $component) | nindent 2 }}
spec:
  {{- if and (not .Values.autoscaling.enabled) (not $slot) }}
  replicas: {{ .Values.replicaCount }}
  {{- end }}
  revisionHistoryLimit: 3
  progressDeadlineSeconds: {{ .Values.progressDeadlineSeconds }}
  # A version that does not prove itself never costs a pod of the one before.
  strategy: {type: RollingUpdate, rollingUpdate: {maxSurge: 1, maxUnavailable: 0}}
  selector:
    matchLabels: {{- include "model-service.slotSelector" (dict "context" . "slot" $slot) | nindent 6 }}
  template: {{- include "model-service.pod" (dict "context" . "slot" $slot) | nindent 4 }}
{{- end }}
{{- end -}}
{{- end -}}

{{/* model-service.pod: template of the pods of "slot". */}}
{{- define "model-service.pod" -}}
{{- $slot := .slot | default "" -}}
{{- $component := ternary "slot" "server" (ne $slot "") -}}
{{- with .context -}}
{{- $pod := dict "context" . "component" $component "values" (include "model-service.scheduling" . | fromYaml)
    "serviceAccountName" (include "model-service.serviceAccountName" .) "grace" (include "model-service.grace" .) }}
{{- $labels := dict "context" . "component" $component "values" .Values "needs" (include "model-service.needs" . | fromJsonArray) }}
{{- $name := include "model-service.fullname" (dict "context" . "suffix" $slot) }}
{{- $place := include "model-service.place" (dict "context" . "holder" (ternary $name "" (ne $slot ""))) | fromYaml }}
{{- $filled := dict "context" . "place" $place -}}
metadata:
  labels:
    {{- include "fairlead.podLabels" $labels | nindent 4 }}
    {{- with $slot }}
    fairlead.io/slot: {{ . }}
    {{- end }}
  annotations:
    checksum/config: {{ include "model-service.configEnv" (dict "config" .Values.config) | sha256sum }}
    fairlead.io/model: {{ ternary (include "model-service.model" .) (printf "%s:%s" (include "model-service.model" .) (include "model-service.version" .)) (ne $slot "") }}
    {{- include "model-service.scraped" (dict "context" . "port" 3000) | nindent 4 }}
    {{- with .Values.podAnnotations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  {{- include "fairlead.podSpec" $pod | nindent 2 }}
  initContainers:
    {{- include "model-service.fetch" $filled | nindent 4 }}
  containers:
    {{- include "model-service.server" $filled | nindent 4 }}
    {{- if include "model-service.vllm" . }}
    {{- include "model-service.engine" $filled | nindent 4 }}
    {{- end }}
  volumes:
    - name: bundles
      {{- include "model-service.cacheVolume" . | nindent 6 }}
    - {name: tmp, emptyDir: {sizeLimit: 1Gi}}
    {{- if .Values.gpu.count }}
    - {name: shm, emptyDir: {medium: Memory, sizeLimit: {{ .Values.gpu.shm }}}}
    {{- end }}
    {{- if include "model-service.vllm" . }}
    {{- include "model-service.engineVolumes" . | nindent 4 }}
    {{- end }}
    {{- with (include "model-service.keys" . | fromYaml).hashes }}
    {{- if .name }}
    - {name: keys, secret: {secretName: {{ .name }}, items: [{key: {{ .key }}, path: keys}]}}
    {{- end }}
    {{- end }}
    {{- with include "fairlead.extraVolumes" (dict "context" . "values" .Values) }}{{ . | nindent 4 }}{{ end }}
{{- end -}}
{{- end -}}

{{/* model-service.scraped: the annotations by which Prometheus finds a pod's "port", where that is how it finds pods. */}}
{{- define "model-service.scraped" -}}
{{- if eq (include "model-service.scrape" .context) "annotations" -}}
prometheus.io/scrape: "true"
prometheus.io/port: {{ quote .port }}
prometheus.io/path: /metrics
{{- end -}}
{{- end -}}
