{{/* platform.federationJob: name of the federation's Job, which changes with what it does. */}}
{{- define "platform.federationJob" -}}
{{- $a := dict "context" . "component" "federation" "values" .Values.federation "image" .Values.federation.image -}}
{{- include "fairlead.partName" (dict "context" . "component" (printf "federation-%s" (include "platform.federationPod" $a | sha256sum | trunc 6))) -}}
{{- end -}}

{{/* platform.federationPod: pod spec of the coordinator. Rounds are kept in S3: a pod that comes after another goes on from there. */}}
{{- define "platform.federationPod" -}}
{{- $f := .values -}}
{{- $s3 := printf "s3://%s" .context.Values.global.s3.bucket -}}
{{- $mlflow := include "fairlead.part" (dict "context" .context "part" "mlflow") | fromYaml -}}
restartPolicy: Never
{{ include "fairlead.podSpec" . }}
containers:
  - name: federation
    {{- include "fairlead.container" . | nindent 4 }}
    # It begins when the tracking server is there, which takes longer at an install. Exit code 3 says that the gate refused
    # the model, which is registered as such; the job has done its work.
    command:
      - sh
      - -c
      - |-
        for try in $(seq 150); do
          python -c 'import socket; socket.create_connection(("{{ $mlflow.host }}", {{ $mlflow.port | int }}), 2)' 2>/dev/null && break
          sleep 2
        done
        "$@" || [ $? -eq 3 ]
      - --
      - python
      - -m
      - deploy.cli
      - federate
      - {{ $f.task }}
      - --listen
      - {{ printf "%s:8443" (include "fairlead.bind" (dict "context" .context "url" true)) | quote }}
      - --certificates
      - /etc/fairlead-federation
      {{- range $f.sites }}
      - --site
      - {{ . }}
      {{- end }}
      {{- with $f.recipe }}
      - --recipe
      - {{ . }}
      {{- end }}
      {{- with $f.source }}
      - --source
      - {{ . | quote }}
      {{- end }}
      {{- range $key, $value := $f.settings }}
      - --set
      - {{ printf "%s=%s" $key (kindIs "string" $value | ternary (toString $value) (toJson $value)) | quote }}
      {{- end }}
    ports: [{name: sites, containerPort: 8443}]
    env:
      - {name: FAIRLEAD_HOME, value: /tmp/fairlead}
      - {name: FAIRLEAD_TRACKING, value: "http://{{ $mlflow.host }}:{{ $mlflow.port | int }}"}
      - {name: FAIRLEAD_ARTIFACTS, value: {{ $s3 }}/bundles}
      - {name: FAIRLEAD_DATA, value: {{ $s3 }}/data}
      - {name: HOME, value: /tmp}
      - {name: COLUMNS, value: "200"}
      - {name: OMP_NUM_THREADS, value: "1"}
      {{- include "platform.s3Env" .context | nindent 6 }}
      {{- include "fairlead.extraEnv" . | nindent 6 }}
    volumeMounts:
      - {name: certificates, mountPath: /etc/fairlead-federation, readOnly: true}
      - {name: tmp, mountPath: /tmp}
      {{- include "fairlead.extraMounts" . | nindent 6 }}
volumes:
  - {name: certificates, secret: {secretName: {{ $f.existingSecret }}, defaultMode: 0440}}
  - {name: tmp, emptyDir: {sizeLimit: {{ $f.scratch }}}}
  {{- include "fairlead.extraVolumes" . | nindent 2 }}
{{- end -}}
