{{/*
platform.watcher: ServiceAccount, NetworkPolicy, Role and Deployment of a pod that watches models by the platform's own image. Takes: "component",
"values", "port" (of its metrics), "command", "env" (list items), "settings" (files of its ConfigMap, in /etc/fairlead), "rules" of its
Role (none: no token), "absent" and "extraEgress" of its network policy.
*/}}
{{- define "platform.watcher" -}}
{{- $a := merge (dict "image" .context.Values.image "token" (not (empty .rules))) . -}}
{{ include "fairlead.serviceAccount" $a }}
---
{{ include "fairlead.networkPolicy" $a }}
---
{{- if .rules }}
{{ include "fairlead.role" $a }}
---
{{- end }}
apiVersion: v1
kind: ConfigMap
metadata:
  {{- include "fairlead.metadata" $a | nindent 2 }}
data: {{- toYaml .settings | nindent 2 }}
---
apiVersion: apps/v1
kind: Deployment
metadata:
  {{- include "fairlead.metadata" $a | nindent 2 }}
spec:
  replicas: 1
  strategy: {type: Recreate} # one at a time
  selector:
    matchLabels: {{- include "fairlead.selectorLabels" $a | nindent 6 }}
  template:
    metadata:
      labels:
        {{- include "fairlead.podLabels" $a | nindent 8 }}
        fairlead.io/metrics: "true"
      annotations:
        checksum/config: {{ toYaml .settings | sha256sum }}
        prometheus.io/scrape: "true"
        prometheus.io/port: {{ .port | quote }}
        prometheus.io/path: /metrics
        {{- with .values.podAnnotations }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
    spec:
      {{- include "fairlead.podSpec" $a | nindent 6 }}
      containers:
        - name: {{ .component }}
          {{- include "fairlead.container" $a | nindent 10 }}
          command: {{ toJson .command }}
          ports: [{name: metrics, containerPort: {{ .port }}}]
          env:
            - {name: HOME, value: /tmp}
            - {name: OMP_NUM_THREADS, value: "1"}
            {{- with .env }}
            {{- toYaml . | nindent 12 }}
            {{- end }}
            {{- include "platform.watcherS3Env" .context | nindent 12 }}
            {{- include "fairlead.extraEnv" $a | nindent 12 }}
          {{- include "fairlead.httpProbes" (dict "ready" "/metrics" "live" "/metrics" "port" "metrics" "startSeconds" 300) | nindent 10 }}
          volumeMounts:
            - {name: settings, mountPath: /etc/fairlead, readOnly: true}
            - {name: tmp, mountPath: /tmp}
            {{- include "fairlead.extraMounts" $a | nindent 12 }}
      volumes:
        - {name: settings, configMap: {name: {{ include "fairlead.partName" $a }}}}
        - {name: tmp, emptyDir: {sizeLimit: 2Gi}}
        {{- include "fairlead.extraVolumes" $a | nindent 8 }}
{{- end -}}

{{/* platform.loops: whether the loop runs, "true" or nothing: without Kubeflow Pipelines it could start nothing. */}}
{{- define "platform.loops" -}}
{{- if and .Values.loop.enabled .Values.pipelines.enabled }}true{{ end -}}
{{- end -}}

{{/* platform.measuresSkew: whether skew is measured, "true" or nothing: without a monitor nobody exports it, and without a feature store no model has features. */}}
{{- define "platform.measuresSkew" -}}
{{- if and .Values.skew.enabled .Values.monitor.enabled (index .Values "feature-store" "enabled") }}true{{ end -}}
{{- end -}}

{{/* platform.ownPrometheus: "true" when the Prometheus of this release runs. */}}
{{- define "platform.ownPrometheus" -}}
{{- if .Values.monitoring.enabled }}{{ include "monitoring.own" .Subcharts.monitoring }}{{ end -}}
{{- end -}}

{{/* platform.predictions: where models log what they answered. */}}
{{- define "platform.predictions" -}}s3://{{ .Values.global.s3.bucket }}/predictions{{- end -}}

{{/* platform.loop: the component of the loop, and what it has to do without. */}}
{{- define "platform.loop" -}}
component: loop
port: 9110
absent: [{{ if not (include "platform.ownPrometheus" .) }}prometheus{{ end }}]
{{- end -}}
