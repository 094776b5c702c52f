{{/*
platform.sqlUsers: a script that writes the SQL which MariaDB runs at each start: a database and a user per part, who may do
anything in it and nothing elsewhere. MLMD shares the user of pipelines, as upstream does. One statement per line.
*/}}
{{- define "platform.sqlUsers" -}}
{{- $feast := index .Values "feature-store" "registry" | default dict -}}
{{- $kfp := .Values.pipelines.sql | default dict -}}
{{- $parts := list
    (dict "user" .Values.mlflow.user "password" "MLFLOW" "databases" (list .Values.mlflow.database))
    (dict "user" ($feast.user | default "feast") "password" "FEAST" "databases" (list ($feast.database | default "feast")))
    (dict "user" ($kfp.user | default "pipelines") "password" "PIPELINES" "databases" (list ($kfp.database | default "mlpipeline") ($kfp.metadataDatabase | default "metadb"))) -}}
{{- if .Values.global.search.enabled -}}{{- $parts = append $parts (dict "user" "search" "password" "SEARCH" "databases" (list "search")) -}}{{- end -}}
quoted() { printf '%s' "$1" | sed "s/[\\\\']/\\\\&/g"; }
umask 077
{
{{- range $part := $parts }}
  printf "CREATE USER IF NOT EXISTS '%s'@'%%' IDENTIFIED BY '%s';\n" {{ .user }} "$(quoted "$PASSWORD_{{ .password }}")"
  printf "ALTER USER '%s'@'%%' IDENTIFIED BY '%s';\n" {{ .user }} "$(quoted "$PASSWORD_{{ .password }}")"
{{- range .databases }}
  echo 'CREATE DATABASE IF NOT EXISTS `{{ . }}` CHARACTER SET utf8mb4;'
  echo 'GRANT ALL ON `{{ . }}`.* TO `{{ $part.user }}`@`%`;'
{{- end }}
{{- end }}
} >/users/users.sql
{{- end -}}

{{/* platform.s3Env: the environment of an S3 client that may everything. */}}
{{- define "platform.s3Env" -}}
{{- $s3 := include "fairlead.part" (dict "context" . "part" "s3") | fromYaml -}}
{{- include "platform.s3EnvOf" (dict "context" . "secret" $s3.secret) -}}
{{- end -}}

{{/* platform.watcherS3Env: that of one which watches models. */}}
{{- define "platform.watcherS3Env" -}}
{{- include "platform.s3EnvOf" (dict "context" . "secret" (include "fairlead.s3Secret" (dict "context" . "who" "watchers"))) -}}
{{- end -}}

{{/* platform.s3EnvOf: that of a client with the key in "secret". */}}
{{- define "platform.s3EnvOf" -}}
{{- $secret := .secret -}}
{{- with .context -}}
{{- $s3 := include "fairlead.part" (dict "context" . "part" "s3") | fromYaml -}}
- {name: AWS_ENDPOINT_URL, value: {{ printf "%s://%s:%d" $s3.scheme $s3.host (int $s3.port) }}}
- {name: MLFLOW_S3_ENDPOINT_URL, value: {{ printf "%s://%s:%d" $s3.scheme $s3.host (int $s3.port) }}}
- {name: AWS_REGION, value: {{ .Values.global.s3.region }}}
- {name: AWS_DEFAULT_REGION, value: {{ .Values.global.s3.region }}}
{{ include "fairlead.secretEnv" (dict "name" "AWS_ACCESS_KEY_ID" "secret" $secret "key" "access-key") }}
{{ include "fairlead.secretEnv" (dict "name" "AWS_SECRET_ACCESS_KEY" "secret" $secret "key" "secret-key") }}
{{- end -}}
{{- end -}}

{{/* platform.demoPod: pod spec of the demo's training. */}}
{{- define "platform.demoPod" -}}
{{- $v := .context.Values -}}
{{- $mlflow := include "fairlead.part" (dict "context" .context "part" "mlflow") | fromYaml -}}
restartPolicy: OnFailure
{{ include "fairlead.podSpec" . }}
containers:
  - name: train
    {{- include "fairlead.container" . | nindent 4 }}
    command:
      - python
      - /demo/demo.py
      - {{ $v.demo.model.source }}
      - {{ $v.demoTraining.recipe }}
      {{- range $key, $value := $v.demoTraining.settings }}
      - {{ printf "%s=%v" $key $value | quote }}
      {{- end }}
    env:
      - {name: FAIRLEAD_HOME, value: /tmp/fairlead}
      - {name: FAIRLEAD_TRACKING, value: "http://{{ $mlflow.host }}:{{ $mlflow.port | int }}"}
      - {name: FAIRLEAD_ARTIFACTS, value: "s3://{{ $v.global.s3.bucket }}/bundles"}
      - {name: FAIRLEAD_FEATURES, value: "s3://{{ $v.global.s3.bucket }}/features"}
      {{- if not (has "redis" .absent) }}
      {{- $redis := include "fairlead.part" (dict "context" .context "part" "redis") | fromYaml }}
      - {name: FAIRLEAD_ONLINE, value: "redis://{{ $redis.host }}:{{ $redis.port | int }}/0"}
      {{- include "fairlead.secretEnv" (dict "name" "FAIRLEAD_REDIS_PASSWORD" "secret" $redis.secret "key" "password") | nindent 6 }}
      {{- end }}
      - {name: HOME, value: /tmp}
      - {name: OMP_NUM_THREADS, value: "1"}
      {{- include "platform.s3Env" .context | nindent 6 }}
      {{- include "fairlead.extraEnv" . | nindent 6 }}
    volumeMounts:
      - {name: tmp, mountPath: /tmp}
      - {name: demo, mountPath: /demo, readOnly: true}
      {{- include "fairlead.extraMounts" . | nindent 6 }}
volumes:
  - {name: tmp, emptyDir: {sizeLimit: 2Gi}}
  - {name: demo, configMap: {name: {{ include "fairlead.partName" . }}}}
  {{- include "fairlead.extraVolumes" . | nindent 2 }}
{{- end -}}

{{/* platform.demo: component of the demo's training, and what it has to do without; features go to Redis where there is a feature store. */}}
{{- define "platform.demo" -}}
component: demo-training
absent: [{{ if not (index .Values "feature-store" "enabled") }}redis{{ end }}]
{{- end -}}

{{/* platform.demoJob: name of the demo's Job, which changes with what it does. */}}
{{- define "platform.demoJob" -}}
{{- $a := include "platform.demo" . | fromYaml | merge (dict "context" . "values" .Values.demoTraining "image" .Values.image) -}}
{{- $content := printf "%s%s" (include "platform.demoPod" $a) (.Files.Get "files/demo.py") -}}
{{- include "fairlead.partName" (dict "context" . "component" (printf "demo-training-%s" ($content | sha256sum | trunc 6))) -}}
{{- end -}}

{{/* platform.demoName: name of the demo's Service. */}}
{{- define "platform.demoName" -}}{{- include "fairlead.partName" (dict "context" . "component" "demo" "max" 63) -}}{{- end -}}
