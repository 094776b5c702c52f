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

{{/*
fairlead.podSecurityContext: the restricted Pod Security standard; "uid" (10001) also owns the volumes. `global.pods` replaces
the ids, or with openshift leaves them out.
*/}}
{{- define "fairlead.podSecurityContext" -}}
{{- $pods := (.context.Values.global | default dict).pods | default dict -}}
runAsNonRoot: true
{{- if not $pods.openshift }}
{{- range $key := list "runAsUser" "runAsGroup" "fsGroup" }}
{{- $id := get $pods $key }}
{{ $key }}: {{ ternary ($.uid | default 10001) $id (has (toString $id) (list "" "<nil>")) | int64 }}
{{- end }}
fsGroupChangePolicy: OnRootMismatch
{{- end }}
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

{{/* fairlead.role: a Role with "rules" and its binding to ServiceAccount "name" (default: the component's). */}}
{{- define "fairlead.role" -}}
{{- $name := .name | default (include "fairlead.partName" .) -}}
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata:
  {{- include "fairlead.metadata" . | nindent 2 }}
rules: {{- toYaml .rules | nindent 2 }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata:
  {{- include "fairlead.metadata" . | nindent 2 }}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: {{ $name }}}
subjects: [{kind: ServiceAccount, name: {{ $name }}, namespace: {{ .context.Release.Namespace }}}]
{{- end -}}

{{/*
fairlead.scheduling: nodeSelector, tolerations, affinity, topologySpreadConstraints, priorityClassName and runtimeClassName of
"values". `global.pods` adds tolerations and labels of nodes, and has the affinity and priority of who names none. Without constraints of its own, a component with "values".replicas > 1 is spread over hosts and zones.
*/}}
{{- define "fairlead.scheduling" -}}
{{- $values := include "fairlead.place" . | fromYaml -}}
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

{{/* fairlead.place: "values", with what `global.pods` says about where all pods run. */}}
{{- define "fairlead.place" -}}
{{- $pods := (.context.Values.global | default dict).pods | default dict -}}
{{- $values := deepCopy (.values | default dict) -}}
{{- $_ := set $values "nodeSelector" (merge ($values.nodeSelector | default dict) ($pods.nodeSelector | default dict)) -}}
{{- $_ := set $values "tolerations" (concat ($values.tolerations | default list) ($pods.tolerations | default list) | uniq) -}}
{{- $_ := set $values "affinity" ($values.affinity | default $pods.affinity) -}}
{{- $_ := set $values "priorityClassName" ($values.priorityClassName | default $pods.priorityClassName) -}}
{{- toYaml $values -}}
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

{{/*
fairlead.extraEnv, fairlead.extraMounts, fairlead.extraVolumes: list items that `global.pods.ca` and "values" add, at the end of the
env and volumeMounts of every container, and of the volumes of every pod.
*/}}
{{- define "fairlead.extraEnv" -}}
{{- $items := .values.extraEnv | default list -}}
{{- if include "fairlead.ca" . -}}
{{- $own := list -}}
{{- range $items }}{{ $own = append $own .name }}{{ end -}}
{{- range $name := list "AWS_CA_BUNDLE" "REQUESTS_CA_BUNDLE" "SSL_CERT_FILE" -}}
{{- if not (has $name $own) -}}{{- $items = prepend $items (dict "name" $name "value" "/etc/fairlead-ca/ca.crt") -}}{{- end -}}
{{- end -}}
{{- end -}}
{{- with $items }}{{ toYaml . }}{{ end -}}
{{- end -}}

{{- define "fairlead.extraMounts" -}}
{{- $items := .values.extraVolumeMounts | default list -}}
{{- if include "fairlead.ca" . -}}
{{- $items = prepend $items (dict "name" "ca" "mountPath" "/etc/fairlead-ca" "readOnly" true) -}}
{{- end -}}
{{- with $items }}{{ toYaml . }}{{ end -}}
{{- end -}}

{{- define "fairlead.extraVolumes" -}}
{{- $items := .values.extraVolumes | default list -}}
{{- with include "fairlead.ca" . -}}{{- $items = prepend $items (fromYaml .) -}}{{- end -}}
{{- with $items }}{{ toYaml . }}{{ end -}}
{{- end -}}

{{/* fairlead.ca: the volume "ca" with the bundle of `global.pods.ca` as ca.crt; empty when there is none. */}}
{{- define "fairlead.ca" -}}
{{- $ca := ((.context.Values.global | default dict).pods | default dict).ca | default dict -}}
{{- $items := list (dict "key" ($ca.key | default "ca.crt") "path" "ca.crt") -}}
{{- if and $ca.configMap $ca.secret -}}
{{- fail "global.pods.ca names a ConfigMap and a Secret; pods mount one. Fix: leave global.pods.ca.configMap or global.pods.ca.secret empty" -}}
{{- end -}}
{{- if $ca.configMap -}}
{{- dict "name" "ca" "configMap" (dict "name" $ca.configMap "items" $items) | toYaml -}}
{{- else if $ca.secret -}}
{{- dict "name" "ca" "secret" (dict "secretName" $ca.secret "items" $items) | toYaml -}}
{{- end -}}
{{- end -}}

{{/* fairlead.pods: `global.pods` as one line, for the name of a Job, whose pods cannot be changed. */}}
{{- define "fairlead.pods" -}}
{{- with (.Values.global | default dict).pods }}{{ toJson . }}{{ end -}}
{{- end -}}

{{/* fairlead.bind: the address that servers listen on: `global.pods.bindAddress`; in "url" true with the brackets of IPv6. */}}
{{- define "fairlead.bind" -}}
{{- $address := ((.context.Values.global | default dict).pods | default dict).bindAddress | default "0.0.0.0" -}}
{{- if and .url (contains ":" $address) -}}[{{ $address }}]{{- else -}}{{ $address }}{{- end -}}
{{- end -}}

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
