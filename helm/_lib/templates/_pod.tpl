{{/*
fairlead.image: registry/repository:tag@digest of "image" {registry, repository, tag, digest}; `global.imageRegistry` replaces
the registry of every image, an empty tag is the chart's appVersion.
*/}}
{{- define "fairlead.image" -}}
{{- $global := .context.Values.global | default dict -}}
{{- $registry := $global.imageRegistry | default .image.registry -}}
{{- $tag := .image.tag | default .context.Chart.AppVersion | toString -}}
{{- if has $tag (list "latest" "main" "master") -}}
{{- fail (printf "image %s: tag %q names no version. Fix: set a version, or a digest beside it" .image.repository $tag) -}}
{{- end -}}
{{- with $registry }}{{ . }}/{{ end }}{{ .image.repository }}:{{ $tag }}{{ with .image.digest }}@{{ . }}{{ end -}}
{{- end -}}

{{/* fairlead.podSecurityContext: the restricted Pod Security standard; "uid" (10001) also owns the volumes. */}}
{{- define "fairlead.podSecurityContext" -}}
runAsNonRoot: true
runAsUser: {{ .uid | default 10001 }}
runAsGroup: {{ .uid | default 10001 }}
fsGroup: {{ .uid | default 10001 }}
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{/* fairlead.containerSecurityContext: no escalation, no capability, read-only root. Mount an emptyDir where it writes. */}}
{{- define "fairlead.containerSecurityContext" -}}
allowPrivilegeEscalation: false
capabilities: {drop: [ALL]}
privileged: false
readOnlyRootFilesystem: true
runAsNonRoot: true
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{/*
fairlead.serviceAccount: a ServiceAccount of the component's own, without a token unless "token" is true. "name" replaces
fairlead.partName; annotations come from "values".serviceAccount.annotations.
*/}}
{{- define "fairlead.serviceAccount" -}}
apiVersion: v1
kind: ServiceAccount
metadata:
  {{- include "fairlead.metadata" . | nindent 2 }}
  {{- with ((.values | default dict).serviceAccount | default dict).annotations }}
  annotations: {{- toYaml . | nindent 4 }}
  {{- end }}
automountServiceAccountToken: {{ .token | default false }}
{{- end -}}

{{/*
fairlead.scheduling: nodeSelector, tolerations, affinity, topologySpreadConstraints, priorityClassName and runtimeClassName of
"values". Without constraints of its own, a component with "values".replicas > 1 is spread over hosts and zones.
*/}}
{{- define "fairlead.scheduling" -}}
{{- $values := .values | default dict -}}
{{- range $key := list "priorityClassName" "runtimeClassName" }}
{{- with index $values $key }}
{{ $key }}: {{ . }}
{{- end }}
{{- end }}
{{- range $key := list "nodeSelector" "tolerations" "affinity" }}
{{- with index $values $key }}
{{ $key }}: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
{{- if $values.topologySpreadConstraints }}
topologySpreadConstraints: {{- toYaml $values.topologySpreadConstraints | nindent 2 }}
{{- else if gt (int ($values.replicas | default 1)) 1 }}
topologySpreadConstraints:
  {{- $labels := include "fairlead.selectorLabels" . | fromYaml }}
  {{- range $key := list "kubernetes.io/hostname" "topology.kubernetes.io/zone" }}
  - maxSkew: 1
    topologyKey: {{ $key }}
    whenUnsatisfiable: ScheduleAnyway
    labelSelector: {matchLabels: {{ toJson $labels }}}
  {{- end }}
{{- end }}
{{- end -}}

{{/*
fairlead.podSpec: what every pod spec begins with: service account, token, pull secrets, security context ("uid"), scheduling.
"token" true mounts the token; "serviceAccountName" replaces fairlead.partName; "grace" is terminationGracePeriodSeconds.
*/}}
{{- define "fairlead.podSpec" -}}
{{- $global := .context.Values.global | default dict -}}
serviceAccountName: {{ .serviceAccountName | default (include "fairlead.partName" .) }}
automountServiceAccountToken: {{ .token | default false }}
enableServiceLinks: false
terminationGracePeriodSeconds: {{ .grace | default 30 }}
{{- with $global.imagePullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  {{- include "fairlead.podSecurityContext" . | nindent 2 }}
{{- with include "fairlead.scheduling" . | trim }}
{{ . }}
{{- end }}
{{- end -}}

{{/*
fairlead.container: what every container has: image, pull policy, security context, resources, and extraEnvFrom of "values"
(an entry of `image` and `resources` of that component). Env goes beside it, with fairlead.extraEnv at its end.
*/}}
{{- define "fairlead.container" -}}
image: {{ include "fairlead.image" (dict "context" .context "image" (.image | default .values.image)) }}
imagePullPolicy: {{ (.image | default .values.image).pullPolicy | default "IfNotPresent" }}
securityContext:
  {{- include "fairlead.containerSecurityContext" . | nindent 2 }}
resources:
  {{- toYaml (.resources | default .values.resources) | nindent 2 }}
{{- with .values.extraEnvFrom }}
envFrom: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* fairlead.extraEnv, fairlead.extraMounts, fairlead.extraVolumes: list items that "values" adds. */}}
{{- define "fairlead.extraEnv" -}}{{- with .values.extraEnv }}{{ toYaml . }}{{ end -}}{{- end -}}
{{- define "fairlead.extraMounts" -}}{{- with .values.extraVolumeMounts }}{{ toYaml . }}{{ end -}}{{- end -}}
{{- define "fairlead.extraVolumes" -}}{{- with .values.extraVolumes }}{{ toYaml . }}{{ end -}}{{- end -}}

{{/* fairlead.secretEnv: one environment variable "name" from key "key" of Secret "secret". */}}
{{- define "fairlead.secretEnv" -}}
- name: {{ .name }}
  valueFrom: {secretKeyRef: {name: {{ .secret }}, key: {{ .key }}}}
{{- end -}}

{{/*
fairlead.httpProbes: startup, readiness and liveness on one named port; "ready", "live" and "started" are paths ("started"
defaults to "ready"), "startSeconds" (60) how long a start may take.
*/}}
{{- define "fairlead.httpProbes" -}}
startupProbe:
  httpGet: {path: {{ .started | default .ready }}, port: {{ .port | default "http" }}}
  periodSeconds: 2
  timeoutSeconds: 3
  failureThreshold: {{ div (.startSeconds | default 60) 2 }}
readinessProbe:
  httpGet: {path: {{ .ready }}, port: {{ .port | default "http" }}}
  periodSeconds: 5
  timeoutSeconds: 3
livenessProbe:
  httpGet: {path: {{ .live }}, port: {{ .port | default "http" }}}
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 6
{{- end -}}

{{/* fairlead.execProbes: the same three with one command, "command" (a list). */}}
{{- define "fairlead.execProbes" -}}
startupProbe:
  exec: {command: {{ toJson .command }}}
  periodSeconds: 2
  timeoutSeconds: 5
  failureThreshold: {{ div (.startSeconds | default 60) 2 }}
readinessProbe:
  exec: {command: {{ toJson .command }}}
  periodSeconds: 5
  timeoutSeconds: 5
livenessProbe:
  exec: {command: {{ toJson .command }}}
  periodSeconds: 15
  timeoutSeconds: 10
  failureThreshold: 6
{{- end -}}
