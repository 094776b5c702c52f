{{/*
model-service.deployment: the pods that answer; "slot" is a or b where a release has two (fairlead.io/slot), whose number of pods and whose bundle
are the keeper's.
*/}}
{{- define "model-service.deployment" -}}
{{- $slot := .slot | default "" -}}
{{- $component := ternary "slot" "server" (ne $slot "") -}}
{{- with .context -}}
{{- $pod := dict "context" . "component" $component "values" (include "model-service.scheduling" . | fromYaml)
    "serviceAccountName" (include "model-service.serviceAccountName" .) "grace" (include "model-service.grace" .) }}
{{- $labels := dict "context" . "component" $component "values" .Values "needs" (include "model-service.needs" . | fromJsonArray) }}
{{- $name := include "model-service.fullname" (dict "context" . "suffix" $slot) }}
{{- $place := include "model-service.place" (dict "context" . "holder" (ternary $name "" (ne $slot ""))) | fromYaml }}
{{- $filled := dict "context" . "place" $place }}
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
  template:
    metadata:
      labels:
        {{- include "fairlead.podLabels" $labels | nindent 8 }}
        {{- with $slot }}
        fairlead.io/slot: {{ . }}
        {{- end }}
      annotations:
        checksum/config: {{ include "model-service.configEnv" (dict "config" .Values.config) | sha256sum }}
        fairlead.io/model: {{ ternary (include "model-service.model" .) (printf "%s:%s" (include "model-service.model" .) (include "model-service.version" .)) (ne $slot "") }}
        {{- include "model-service.scraped" (dict "context" . "port" 3000) | nindent 8 }}
        {{- with .Values.podAnnotations }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
    spec:
      {{- include "fairlead.podSpec" $pod | nindent 6 }}
      initContainers:
        {{- include "model-service.fetch" $filled | nindent 8 }}
      containers:
        {{- include "model-service.server" $filled | nindent 8 }}
      volumes:
        - name: bundles
          {{- include "model-service.cacheVolume" . | nindent 10 }}
        - {name: tmp, emptyDir: {sizeLimit: 1Gi}}
        {{- if .Values.gpu.count }}
        - {name: shm, emptyDir: {medium: Memory, sizeLimit: {{ .Values.gpu.shm }}}}
        {{- end }}
        {{- with (include "model-service.keys" . | fromYaml).hashes }}
        {{- if .name }}
        - {name: keys, secret: {secretName: {{ .name }}, items: [{key: {{ .key }}, path: keys}]}}
        {{- end }}
        {{- end }}
        {{- with include "fairlead.extraVolumes" (dict "context" . "values" .Values) }}{{ . | nindent 8 }}{{ end }}
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
