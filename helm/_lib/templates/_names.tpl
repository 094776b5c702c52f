{{/*
Every helper takes a dict: "context" is the root context ($), "component" the part of the chart ("server", "redis" ...).

fairlead.name: what the workload is called in `app.kubernetes.io/name`: "app", else the chart; never changed by user labels.
*/}}
{{- define "fairlead.name" -}}
{{- .app | default .context.Values.nameOverride | default .context.Chart.Name | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{/*
fairlead.fullname: <release>[-<component>], or <fullnameOverride>[-<component>], at most "max" (63) characters. In an umbrella
chart the name (alias) of the part follows the release.
A name that would be longer keeps its component and gets a hash, so that two long releases cannot collide. StatefulSets and
CronJobs pass "max" 52: Kubernetes appends to their names in a label.
*/}}
{{- define "fairlead.fullname" -}}
{{- $values := .context.Values -}}
{{- $base := .context.Release.Name -}}
{{- if $values.fullnameOverride -}}{{- $base = $values.fullnameOverride -}}
{{- else if not .context.Chart.IsRoot -}}{{- $base = printf "%s-%s" $base .context.Chart.Name -}}
{{- end -}}
{{- $component := .component | default "" -}}
{{- $suffix := ternary "" (printf "-%s" $component) (empty $component) -}}
{{- $max := .max | default 63 | int -}}
{{- if le (add (len $base) (len $suffix)) $max -}}
{{- printf "%s%s" $base $suffix -}}
{{- else -}}
{{- $room := int (sub (sub $max 8) (len $suffix)) -}}
{{- printf "%s-%s%s" ($base | trunc $room | trimSuffix "-") ($base | sha256sum | trunc 7) $suffix -}}
{{- end -}}
{{- end -}}

{{/*
fairlead.requireName: fails when no Service can be called "name", from which every other name is made; "fix" says what to do.
*/}}
{{- define "fairlead.requireName" -}}
{{- $rule := "" -}}
{{- if not (regexMatch "^[a-z]" .name) -}}{{- $rule = "begin with a letter" -}}
{{- else if contains "." .name -}}{{- $rule = "have no dot" -}}
{{- else if not (regexMatch "^[-a-z0-9]*$" .name) -}}{{- $rule = "be of small letters, digits and hyphens" -}}
{{- else if hasSuffix "-" .name -}}{{- $rule = "end in a letter or digit" -}}
{{- end -}}
{{- with $rule -}}
{{- fail (printf "a Service cannot be called %q: it must %s. Fix: %s" $.name . $.fix) -}}
{{- end -}}
{{- end -}}

{{/*
fairlead.partName: name of a part of the platform as its other charts see it, whatever their own overrides are. Charts that
run a shared part (mariadb, s3, redis, mlflow, prometheus) name it by this. Takes "max" like fairlead.fullname.
*/}}
{{- define "fairlead.partName" -}}
{{- $context := dict "Values" dict "Release" .context.Release "Chart" (dict "IsRoot" true) -}}
{{- include "fairlead.fullname" (dict "context" $context "component" .component "max" (.max | default 52)) -}}
{{- end -}}

{{/*
fairlead.selectorLabels: name, instance and component only. They are immutable, so nothing a user sets or a version changes
may ever be among them.
*/}}
{{- define "fairlead.selectorLabels" -}}
app.kubernetes.io/name: {{ include "fairlead.name" . }}
app.kubernetes.io/instance: {{ .context.Release.Name }}
{{- with .component }}
app.kubernetes.io/component: {{ . }}
{{- end }}
{{- end -}}

{{/* fairlead.labels: the recommended labels, for metadata of every object; adds `commonLabels` of the chart's values. */}}
{{- define "fairlead.labels" -}}
{{ include "fairlead.selectorLabels" . }}
app.kubernetes.io/version: {{ .context.Chart.AppVersion | default .context.Chart.Version | quote }}
app.kubernetes.io/part-of: fairlead
app.kubernetes.io/managed-by: {{ .context.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .context.Chart.Name .context.Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{- with .context.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/*
fairlead.metadata: name, namespace and labels of an object called fairlead.partName; "name" replaces the name, "annotations" (a
dict) are added.
*/}}
{{- define "fairlead.metadata" -}}
name: {{ .name | default (include "fairlead.partName" .) }}
namespace: {{ .context.Release.Namespace }}
labels:
  {{- include "fairlead.labels" . | nindent 2 }}
{{- with .annotations }}
annotations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/*
fairlead.podLabels: labels of a pod: those of the selector, "values".podLabels, and for each server that the component connects to
(fairlead.edges, without those in "absent"; or "needs", a list) the label that its network policy admits. No version: a new chart must not
restart a database.
*/}}
{{- define "fairlead.podLabels" -}}
{{ include "fairlead.selectorLabels" . }}
app.kubernetes.io/part-of: fairlead
{{- range ternary .needs (include "fairlead.needs" . | fromJsonArray) (hasKey . "needs") }}
fairlead.io/access-{{ . }}: "true"
{{- end }}
{{- with (.values | default dict).podLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}
