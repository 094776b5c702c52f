{{/* pipelines.apiServerEnv: environment of the API server; "sql" and "s3" are from fairlead.part. */}}
{{- define "pipelines.apiServerEnv" -}}
{{- $v := .context.Values -}}
# The Service of ML Metadata that is written into each workflow.
- {name: METADATA_SERVICE_NAME, value: {{ include "fairlead.partName" (dict "context" .context "component" "metadata-grpc") }}}
- {name: POD_NAMESPACE, valueFrom: {fieldRef: {fieldPath: metadata.namespace}}}
- {name: CLUSTER_DOMAIN, value: cluster.local}
- {name: DB_DRIVER_NAME, value: mysql}
- {name: DBCONFIG_MYSQLCONFIG_USER, value: {{ $v.sql.user }}}
- {name: DBCONFIG_MYSQLCONFIG_DBNAME, value: {{ $v.sql.database }}}
- {name: DBCONFIG_MYSQLCONFIG_HOST, value: {{ .sql.host }}}
- {name: DBCONFIG_MYSQLCONFIG_PORT, value: {{ .sql.port | int | quote }}}
- {name: DBCONFIG_CONMAXLIFETIME, value: 120s}
{{ include "fairlead.secretEnv" (dict "name" "DBCONFIG_MYSQLCONFIG_PASSWORD" "secret" .sql.secret "key" "pipelines-password") }}
- {name: OBJECTSTORECONFIG_HOST, value: {{ .s3.host }}}
- {name: OBJECTSTORECONFIG_PORT, value: {{ .s3.port | int | quote }}}
- {name: OBJECTSTORECONFIG_SECURE, value: {{ eq .s3.scheme "https" | quote }}}
- {name: OBJECTSTORECONFIG_BUCKETNAME, value: {{ $v.global.s3.bucket }}}
{{ include "fairlead.secretEnv" (dict "name" "OBJECTSTORECONFIG_ACCESSKEY" "secret" .s3.secret "key" "access-key") }}
{{ include "fairlead.secretEnv" (dict "name" "OBJECTSTORECONFIG_SECRETACCESSKEY" "secret" .s3.secret "key" "secret-key") }}
- {name: V2_DRIVER_IMAGE, value: {{ include "fairlead.image" (dict "context" .context "image" $v.images.driver) }}}
- {name: V2_LAUNCHER_IMAGE, value: {{ include "fairlead.image" (dict "context" .context "image" $v.images.launcher) }}}
- {name: COMPILED_PIPELINE_SPEC_PATCH, value: "{}"}
- {name: PUBLISH_LOGS, value: {{ $v.publishLogs | quote }}}
- {name: LOG_LEVEL, value: info}
- {name: AUTO_UPDATE_PIPELINE_DEFAULT_VERSION, value: "true"}
# Steps then pass the restricted Pod Security standard.
- {name: DEFAULT_SECURITY_CONTEXT_RUN_AS_NON_ROOT, value: "true"}
{{- $pods := $v.global.pods | default dict }}
{{- if not $pods.openshift }}
{{- range $name, $id := dict "USER" $pods.runAsUser "GROUP" $pods.runAsGroup }}
{{- if not (kindIs "invalid" $id) }}
- {name: DEFAULT_SECURITY_CONTEXT_RUN_AS_{{ $name }}, value: {{ int64 $id | quote }}}
{{- end }}
{{- end }}
{{- end }}
{{- if include "fairlead.ca" . }}
{{- with $pods.ca.secret }}
- {name: CABUNDLE_SECRET_NAME, value: {{ . }}}
{{- end }}
{{- with $pods.ca.configMap }}
- {name: CABUNDLE_CONFIGMAP_NAME, value: {{ . }}}
{{- end }}
- {name: CABUNDLE_KEY_NAME, value: {{ $pods.ca.key | default "ca.crt" }}}
{{- end }}
# It exits at once without these two, and never calls them for v2 pipelines.
- {name: ML_PIPELINE_VISUALIZATIONSERVER_SERVICE_HOST, value: unused}
- {name: ML_PIPELINE_VISUALIZATIONSERVER_SERVICE_PORT, value: "8888"}
{{- end -}}

{{/* pipelines.uiEnv: environment of the web page. */}}
{{- define "pipelines.uiEnv" -}}
{{- $api := include "fairlead.part" (dict "context" .context "part" "pipelines") | fromYaml -}}
{{- $metadata := include "fairlead.part" (dict "context" .context "part" "metadata-web") | fromYaml -}}
- {name: MINIO_NAMESPACE, value: ""}
- {name: MINIO_HOST, value: {{ .s3.host }}}
- {name: MINIO_PORT, value: {{ .s3.port | int | quote }}}
- {name: MINIO_SSL, value: {{ eq .s3.scheme "https" | quote }}}
{{ include "fairlead.secretEnv" (dict "name" "MINIO_ACCESS_KEY" "secret" .s3.secret "key" "access-key") }}
{{ include "fairlead.secretEnv" (dict "name" "MINIO_SECRET_KEY" "secret" .s3.secret "key" "secret-key") }}
- {name: FRONTEND_SERVER_NAMESPACE, valueFrom: {fieldRef: {fieldPath: metadata.namespace}}}
- {name: ML_PIPELINE_SERVICE_HOST, value: {{ $api.host }}}
- {name: ML_PIPELINE_SERVICE_PORT, value: {{ $api.port | int | quote }}}
- {name: METADATA_ENVOY_SERVICE_SERVICE_HOST, value: {{ $metadata.host }}}
- {name: METADATA_ENVOY_SERVICE_SERVICE_PORT, value: {{ $metadata.port | int | quote }}}
# Logs of pods that are gone, where Argo has put them.
- {name: ARGO_ARCHIVE_LOGS, value: {{ .context.Values.publishLogs | quote }}}
- {name: ARGO_ARCHIVE_BUCKETNAME, value: {{ .context.Values.global.s3.bucket }}}
- {name: ARGO_KEYFORMAT, value: {{ include "pipelines.logKeys" . | quote }}}
- {name: DISABLE_GKE_METADATA, value: "true"}
- {name: ALLOW_CUSTOM_VISUALIZATIONS, value: "false"}
{{- end -}}

{{/* pipelines.logKeys: where Argo puts the logs of a pod, in the bucket; it adds /main.log. */}}
{{- define "pipelines.logKeys" -}}kfp/logs/{{ "{{workflow.name}}/{{pod.name}}" }}{{- end -}}

{{/* pipelines.controllerConfig: data of ConfigMap workflow-controller-configmap. */}}
{{- define "pipelines.controllerConfig" -}}
{{- $s3 := include "fairlead.part" (dict "context" . "part" "s3") | fromYaml -}}
{{- with .Values.parallelism }}
parallelism: {{ . | quote }}
{{- end }}
metricsConfig: |
  {enabled: true, path: /metrics, port: 9090, secure: false}
nodeEvents: |
  {enabled: false}
{{- /* The persistence agent deletes a workflow after keepFinishedSeconds, once its end is recorded. A day later it goes in any case. */}}
{{- $end := dict "ttlStrategy" (dict "secondsAfterCompletion" (add (int .Values.keepFinishedSeconds) 86400)) }}
workflowDefaults: |
  {{- toYaml (dict "spec" (merge $end (include "pipelines.stepDefaults" . | fromYaml))) | nindent 2 }}
executor: |
  imagePullPolicy: IfNotPresent
  resources: {requests: {cpu: 10m, memory: 64Mi}, limits: {memory: 256Mi}}
  securityContext: {{ include "fairlead.containerSecurityContext" . | fromYaml | toJson }}
  {{- with include "fairlead.extraEnv" (dict "context" . "values" dict) | fromYamlArray }}
  env: {{ toJson . }}
  {{- end }}
artifactRepository: |
  archiveLogs: {{ .Values.publishLogs }}
  s3:
    endpoint: {{ printf "%s:%d" $s3.host (int $s3.port) }}
    insecure: {{ ne $s3.scheme "https" }}
    region: {{ .Values.global.s3.region }}
    bucket: {{ .Values.global.s3.bucket }}
    keyFormat: {{ include "pipelines.logKeys" . | quote }}
    accessKeySecret: {name: {{ $s3.secret }}, key: access-key}
    secretKeySecret: {name: {{ $s3.secret }}, key: secret-key}
{{- end -}}

{{/*
pipelines.stepDefaults: what `global.pods` says of the pods of steps, as the part of a Workflow's spec that Argo gives to every one.
Its podSpecPatch reaches the step's container and the one that waits for it.
*/}}
{{- define "pipelines.stepDefaults" -}}
{{- $pods := .Values.global.pods | default dict -}}
{{- $a := dict "context" . "values" dict -}}
{{- $place := include "fairlead.place" $a | fromYaml -}}
{{- $spec := dict -}}
{{- range $key, $value := dict "nodeSelector" $place.nodeSelector "tolerations" $place.tolerations "affinity" $place.affinity
    "podPriorityClassName" $place.priorityClassName "imagePullSecrets" .Values.global.imagePullSecrets -}}
{{- if $value -}}{{- $_ := set $spec $key $value -}}{{- end -}}
{{- end -}}
{{- if not (or (kindIs "invalid" $pods.fsGroup) $pods.openshift) -}}
{{- $_ := set $spec "securityContext" (dict "fsGroup" (int64 $pods.fsGroup)) -}}
{{- end -}}
{{- with include "fairlead.ca" $a -}}
{{- $container := dict "env" (include "fairlead.extraEnv" $a | fromYamlArray) "volumeMounts" (include "fairlead.extraMounts" $a | fromYamlArray) -}}
{{- $patch := dict "containers" (list (merge (dict "name" "main") $container) (merge (dict "name" "wait") $container)) -}}
{{- $_ := set $spec "volumes" (list (fromYaml .)) -}}
{{- $_ := set $spec "podSpecPatch" (toJson $patch) -}}
{{- end -}}
{{- toYaml $spec -}}
{{- end -}}

{{/* pipelines.controllerRules: what Argo's controller may do, in its own namespace. */}}
{{- define "pipelines.controllerRules" -}}
{{- $s3 := include "fairlead.part" (dict "context" . "part" "s3") | fromYaml -}}
- {apiGroups: [coordination.k8s.io], resources: [leases], verbs: [create, get, update]}
- {apiGroups: [""], resources: [pods], verbs: [create, get, list, watch, update, patch, delete]}
- {apiGroups: [""], resources: [pods/exec], verbs: [create]}
- {apiGroups: [""], resources: [configmaps], verbs: [get, list, watch]}
- {apiGroups: [""], resources: [secrets], resourceNames: [{{ $s3.secret }}], verbs: [get]}
- {apiGroups: [""], resources: [serviceaccounts], verbs: [get, list]}
- {apiGroups: [""], resources: [events], verbs: [create, patch]}
- {apiGroups: [""], resources: [persistentvolumeclaims, persistentvolumeclaims/finalizers], verbs: [create, get, update, delete]}
- {apiGroups: [policy], resources: [poddisruptionbudgets], verbs: [create, get, delete]}
- apiGroups: [argoproj.io]
  resources: [workflows, workflows/finalizers, workflowtasksets, workflowtasksets/finalizers, workflowtasksets/status, workflowartifactgctasks]
  verbs: [create, get, list, watch, update, patch, delete]
- {apiGroups: [argoproj.io], resources: [workflowtemplates, workflowtemplates/finalizers], verbs: [get, list, watch]}
- {apiGroups: [argoproj.io], resources: [workflowtaskresults], verbs: [list, watch, deletecollection]}
- {apiGroups: [argoproj.io], resources: [cronworkflows, cronworkflows/finalizers], verbs: [get, list, watch, update, patch, delete]}
{{- end -}}
