{{/*
fairlead.profile: the platform as its pods see it, as YAML, which is what deploy/env/cluster/profile.yaml says of the default release; without
the servers in "absent".
*/}}
{{- define "fairlead.profile" -}}
{{- $part := dict -}}
{{- range list "sql" "s3" "mlflow" "redis" "prometheus" "pipelines" -}}
{{- $_ := set $part . (include "fairlead.part" (dict "context" $.context "part" .) | fromYaml) -}}
{{- end -}}
{{- $bucket := printf "s3://%s" .context.Values.global.s3.bucket -}}
{{- $absent := .absent | default list -}}
home: /tmp/fairlead
tracking: http://{{ $part.mlflow.host }}:{{ $part.mlflow.port | int }}
data: {{ $bucket }}/data
artifacts: {{ $bucket }}/bundles
features: {{ $bucket }}/features
predictions: {{ $bucket }}/predictions
online: redis://{{ $part.redis.host }}:{{ $part.redis.port | int }}/0
{{- $search := (.context.Values.global.search | default dict).enabled }}
{{- if $search }}
studies: mysql+pymysql://search@{{ $part.sql.host }}:{{ $part.sql.port | int }}/search
{{- end }}
{{- with (.context.Values.global.mongodb | default dict).documents }}
documents: mongodb://{{ $.context.Values.global.mongodb.host }}:{{ $.context.Values.global.mongodb.port | int }}/{{ . }}
{{- end }}
cluster:
  namespace: {{ .context.Release.Namespace }}
  kfp: {{ if has "pipelines" $absent }}""{{ else }}http://{{ $part.pipelines.host }}:{{ $part.pipelines.port | int }}{{ end }}
  prometheus: {{ if has "prometheus" $absent }}""{{ else }}http://{{ $part.prometheus.host }}:{{ $part.prometheus.port | int }}{{ end }}
  storage: {endpoint: "{{ $part.s3.scheme }}://{{ $part.s3.host }}:{{ $part.s3.port | int }}", region: {{ .context.Values.global.s3.region }}, secret: {name: {{ $part.s3.secret }}}, models: {name: {{ include "fairlead.s3Secret" (dict "context" .context "who" "models") }}}, watchers: {name: {{ include "fairlead.s3Secret" (dict "context" .context "who" "watchers") }}}}
  redis: {name: {{ $part.redis.secret }}, password_key: password}
  {{- with .context.Values.global.imageRegistry }}
  image_registry: {{ . }}
  {{- end }}
  {{- with .context.Values.global.imagePullSecrets }}
  image_pull_secrets: [{{ range $i, $secret := . }}{{ if $i }}, {{ end }}{{ $secret.name }}{{ end }}]
  {{- end }}
  {{- with (.context.Values.global.mongodb | default dict).existingSecret }}
  mongodb: {name: {{ . }}, user_key: username, password_key: password}
  {{- end }}
  {{- if $search }}
  search: {name: {{ $part.sql.secret }}, password_key: search-password}
  {{- end }}
  salt: {name: {{ include "fairlead.saltSecret" . }}, password_key: salt}
{{- end -}}
