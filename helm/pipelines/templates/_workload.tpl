{{/*
pipelines.workload: ServiceAccount, NetworkPolicy, Role with its binding, PodDisruptionBudget and Deployment of one part. Takes:
"component", "image" (key of images, or an image), "replicas"; "container", a dict of what differs in the container; "rules" of the
Role (none: no token), "resources" (default: those of `pod`) and "uid".
*/}}
{{- define "pipelines.workload" -}}
{{- $context := .context -}}
{{- $image := .image -}}
{{- if kindIs "string" $image -}}{{- $image = index $context.Values.images $image -}}{{- end -}}
{{- $values := merge (dict "replicas" .replicas) (pick . "resources") $context.Values.pod -}}
{{- $a := merge (dict "values" $values "token" (not (empty .rules)) "image" $image) (omit . "image") -}}
{{ include "fairlead.serviceAccount" $a }}
---
{{ include "fairlead.networkPolicy" $a }}
---
{{ include "fairlead.pdb" $a }}
---
{{- with .rules }}
{{ include "fairlead.role" (merge (dict "rules" .) $a) }}
---
{{- end }}
apiVersion: apps/v1
kind: Deployment
metadata:
  {{- include "fairlead.metadata" $a | nindent 2 }}
spec:
  replicas: {{ .replicas }}
  selector:
    matchLabels: {{- include "fairlead.selectorLabels" $a | nindent 6 }}
  template:
    metadata:
      labels:
        {{- include "fairlead.podLabels" $a | nindent 8 }}
        {{- if .metrics }}
        fairlead.io/metrics: "true"
        {{- end }}
      annotations:
        {{- with .checksum }}
        checksum/config: {{ . | sha256sum }}
        {{- end }}
        {{- if .metrics }}
        prometheus.io/scrape: "true"
        prometheus.io/port: {{ .metrics | quote }}
        prometheus.io/path: /metrics
        {{- end }}
        {{- with $values.podAnnotations }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
    spec:
      {{- include "fairlead.podSpec" $a | nindent 6 }}
      containers:
        - name: {{ .component }}
          {{- include "fairlead.container" $a | nindent 10 }}
          {{- with .container.command }}
          command: {{ toJson . }}
          {{- end }}
          {{- with .container.args }}
          args: {{- toYaml . | nindent 12 }}
          {{- end }}
          {{- with .container.ports }}
          ports: {{- toYaml . | nindent 12 }}
          {{- end }}
          env:
            - {name: NAMESPACE, valueFrom: {fieldRef: {fieldPath: metadata.namespace}}}
            {{- with .container.env }}
            {{- . | nindent 12 }}
            {{- end }}
            {{- include "fairlead.extraEnv" $a | nindent 12 }}
          {{- with .container.probes }}
          {{- . | nindent 10 }}
          {{- end }}
          volumeMounts:
            - {name: tmp, mountPath: /tmp}
            {{- with .container.mounts }}
            {{- . | nindent 12 }}
            {{- end }}
            {{- include "fairlead.extraMounts" $a | nindent 12 }}
      volumes:
        - {name: tmp, emptyDir: {sizeLimit: 256Mi}}
        {{- with .container.volumes }}
        {{- . | nindent 8 }}
        {{- end }}
        {{- include "fairlead.extraVolumes" $a | nindent 8 }}
{{- end -}}

{{/* pipelines.token: volume and mount of a token for the API server, which does not take the Kubernetes one. */}}
{{- define "pipelines.tokenVolume" -}}
- name: token
  projected:
    sources: [{serviceAccountToken: {path: {{ .path }}, expirationSeconds: 3600, audience: pipelines.kubeflow.org}}]
{{- end -}}
