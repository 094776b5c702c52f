{{/*
platform.s3Policy: what the accounts of the embedded S3 may in the bucket, as JSON. Models read what they serve and write what they answered. Who
watches them reads everything, keeps the log, and writes the audit log, of which it can remove nothing, and its own state.
*/}}
{{- define "platform.s3Policy" -}}
{{- $bucket := printf "arn:aws:s3:::%s" .Values.global.s3.bucket -}}
{{- $models := dict "AWS" (list "fairlead-models") -}}
{{- $watchers := dict "AWS" (list "fairlead-watchers") -}}
{{- $demo := .Values.demo.model.source | trimPrefix (printf "s3://%s/" .Values.global.s3.bucket) -}}
{{- $prefixes := list "bundles/*" "predictions/*" $demo (printf "%s/*" $demo) -}}
{{- $parts := list "s3:AbortMultipartUpload" "s3:ListMultipartUploadParts" -}}
{{- $statements := list
    (dict "Sid" "ModelsList" "Principal" $models "Action" (list "s3:ListBucket") "Resource" (list $bucket) "Condition" (dict "StringLike" (dict "s3:prefix" $prefixes)))
    (dict "Sid" "ModelsRead" "Principal" $models "Action" (list "s3:GetObject") "Resource" (list (printf "%s/bundles/*" $bucket) (printf "%s/%s/*" $bucket $demo)))
    (dict "Sid" "ModelsLog" "Principal" $models "Action" (list "s3:PutObject") "Resource" (list (printf "%s/predictions/*" $bucket)))
    (dict "Sid" "WatchersRead" "Principal" $watchers "Action" (list "s3:ListBucket" "s3:GetObject") "Resource" (list $bucket (printf "%s/*" $bucket)))
    (dict "Sid" "WatchersKeep" "Principal" $watchers "Action" (concat (list "s3:PutObject" "s3:DeleteObject") $parts)
      "Resource" (list (printf "%s/predictions/*" $bucket) (printf "%s/bundles/.loop/*" $bucket)))
    (dict "Sid" "WatchersAudit" "Principal" $watchers "Action" (list "s3:PutObject") "Resource" (list (printf "%s/bundles/.audit/*" $bucket))) -}}
{{- $allowed := list -}}
{{- range $statements }}{{ $allowed = append $allowed (merge (dict "Effect" "Allow") .) }}{{ end -}}
{{- dict "Version" "2012-10-17" "Statement" $allowed | toJson -}}
{{- end -}}

{{/* platform.limitS3: the container that puts this policy on the bucket, with the key of the embedded S3 itself. */}}
{{- define "platform.limitS3" -}}
{{- $a := dict "context" . "image" .Values.image "values" (pick .Values.mlflow "extraEnvFrom")
    "resources" (dict "requests" (dict "cpu" "10m" "memory" "128Mi") "limits" (dict "memory" "128Mi")) -}}
{{- $plain := dict "context" . "values" dict -}}
- name: limit-s3
  {{- include "fairlead.container" $a | nindent 2 }}
  command: [python, -c, {{ .Files.Get "files/s3_policy.py" | toJson }}]
  env:
    - {name: HOME, value: /tmp}
    - {name: BUCKET, value: {{ .Values.global.s3.bucket }}}
    - {name: POLICY, value: {{ include "platform.s3Policy" . | toJson }}}
    {{- include "platform.s3Env" . | nindent 4 }}
    {{- with include "fairlead.extraEnv" $plain }}{{ . | nindent 4 }}{{ end }}
  volumeMounts:
    - {name: tmp, mountPath: /tmp}
    {{- with include "fairlead.extraMounts" $plain }}{{ . | nindent 4 }}{{ end }}
{{- end -}}
