{{/* federated-site.validate: what cannot work, with the key that mends it. */}}
{{- define "federated-site.validate" -}}
{{- include "fairlead.requireName" (dict "name" .Release.Name "fix" "install it under another release name, such as site") -}}
{{- range $key, $value := dict "name" .Values.name "server.host" .Values.server.host "existingSecret" .Values.existingSecret "source" .Values.source -}}
{{- if not $value -}}
{{- fail (printf "%s is not set. Fix: --set %s=... (see values.yaml); certificates come from the coordinator: fairlead federation certificates" $key $key) -}}
{{- end -}}
{{- end -}}
{{- $keys := list "ca.pem" (printf "%s.crt" .Values.name) (printf "%s.key" .Values.name) -}}
{{- include "fairlead.requireSecret" (dict "context" $ "secret" .Values.existingSecret "value" "existingSecret" "keys" $keys) -}}
{{- end -}}

{{/* federated-site.job: name of the Job, which changes with what it does. */}}
{{- define "federated-site.job" -}}
{{- $a := dict "context" . "component" "federated-site" "values" .Values "persistence" .Values.persistence -}}
{{- include "fairlead.partName" (dict "context" . "component" (printf "federated-site-%s" (include "federated-site.pod" $a | sha256sum | trunc 6))) -}}
{{- end -}}

{{- define "federated-site.pod" -}}
{{- $v := .values -}}
restartPolicy: OnFailure
{{ include "fairlead.podSpec" . }}
containers:
  - name: site
    {{- include "fairlead.container" . | nindent 4 }}
    # Exit code 3 says that this site refused the model; the job has done its work.
    command:
      - sh
      - -c
      - '"$@" || [ $? -eq 3 ]'
      - --
      - python
      - -m
      - deploy.cli
      - federation
      - site
      - {{ $v.task }}
      - --name
      - {{ $v.name }}
      - --server
      - {{ printf "%s:%d" $v.server.host (int $v.server.port) }}
      - --certificates
      - /etc/fairlead-federation
      - --source
      - {{ $v.source | quote }}
      - --folder
      - /data/site
      {{- with $v.recipe }}
      - --recipe
      - {{ . }}
      {{- end }}
      {{- range $option, $given := dict "--rule" $v.rules "--set" $v.settings }}
      {{- range $key, $value := $given }}
      - {{ $option }}
      - {{ printf "%s=%s" $key (kindIs "string" $value | ternary (toString $value) (toJson $value)) | quote }}
      {{- end }}
      {{- end }}
    env:
      - {name: FAIRLEAD_HOME, value: /data/fairlead}
      - {name: HOME, value: /tmp}
      - {name: COLUMNS, value: "200"}
      - {name: OMP_NUM_THREADS, value: "1"}
      {{- include "fairlead.extraEnv" . | nindent 6 }}
    volumeMounts:
      - {name: certificates, mountPath: /etc/fairlead-federation, readOnly: true}
      - {name: data, mountPath: /data}
      - {name: tmp, mountPath: /tmp}
      {{- if $v.rowsClaim }}
      - {name: rows, mountPath: /rows, readOnly: true}
      {{- end }}
      {{- include "fairlead.extraMounts" . | nindent 6 }}
volumes:
  - {name: certificates, secret: {secretName: {{ $v.existingSecret }}, defaultMode: 0440}}
  - {name: tmp, emptyDir: {sizeLimit: 2Gi}}
  {{- include "fairlead.volume" . | nindent 2 }}
  {{- with $v.rowsClaim }}
  - {name: rows, persistentVolumeClaim: {claimName: {{ . }}, readOnly: true}}
  {{- end }}
  {{- include "fairlead.extraVolumes" . | nindent 2 }}
{{- end -}}
