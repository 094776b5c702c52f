{{/* model-service.keeper: the pod that brings versions to traffic. One at a time: the next waits until the one before has ended. */}}
{{- define "model-service.keeper" -}}
{{- $name := include "model-service.fullname" (dict "context" . "suffix" "rollouts") -}}
{{- $needs := list -}}
{{- if or (hasPrefix "s3://" .Values.model.source) (hasPrefix "s3://" .Values.rollouts.artifacts) -}}{{- $needs = append $needs "s3" -}}{{- end -}}
{{- if .Values.rollouts.tracking -}}{{- $needs = append $needs "mlflow" -}}{{- end -}}
apiVersion: apps/v1
kind: Deployment
metadata:
  {{- include "model-service.meta" (dict "context" . "suffix" "rollouts" "component" "rollout") | nindent 2 }}
spec:
  replicas: 1
  strategy: {type: Recreate}
  selector:
    matchLabels: {{- include "fairlead.selectorLabels" (dict "context" . "component" "rollout") | nindent 6 }}
  template:
    metadata:
      labels: {{- include "fairlead.podLabels" (dict "context" . "component" "rollout" "needs" $needs) | nindent 8 }}
      {{- with include "model-service.scraped" (dict "context" . "port" 9110) }}
      annotations: {{- . | nindent 8 }}
      {{- end }}
    spec:
      {{- include "fairlead.podSpec" (dict "context" . "component" "rollout" "values" (pick .Values "nodeSelector" "tolerations" "affinity" "priorityClassName") "serviceAccountName" $name "token" true) | nindent 6 }}
      containers:
        - name: keeper
          {{- include "fairlead.container" (dict "context" . "values" (dict "extraEnvFrom" list) "image" (include "model-service.image" . | fromYaml) "resources" .Values.rollouts.resources) | nindent 10 }}
          command: [python, -m, services.rollout]
          env:
            {{- include "model-service.keeperEnv" . | trim | nindent 12 }}
            {{- $secret := .Values.rollouts.storageSecret | default (include "model-service.storage" . | fromYaml).secret }}
            {{- include "model-service.storageEnvOf" (dict "context" . "secret" $secret) | nindent 12 }}
            {{- with include "fairlead.extraEnv" (dict "context" . "values" dict) }}{{ . | nindent 12 }}{{ end }}
          ports:
            - {name: http, containerPort: 9110}
            {{- if not .Values.rollouts.httpRoute.enabled }}
            - {name: xds, containerPort: 9111}
            {{- end }}
          {{- include "fairlead.httpProbes" (dict "ready" "/readyz" "live" "/livez" "started" "/livez") | nindent 10 }}
          volumeMounts:
            - {name: tmp, mountPath: /tmp}
            {{- with include "fairlead.extraMounts" (dict "context" . "values" dict) }}{{ . | nindent 12 }}{{ end }}
      volumes:
        - {name: tmp, emptyDir: {sizeLimit: 64Mi}}
        {{- with include "fairlead.extraVolumes" (dict "context" . "values" dict) }}{{ . | nindent 8 }}{{ end }}
{{- end -}}

{{/*
model-service.router: the Envoys before the slots. A new one is ready once the keeper told it its routes and a version answers through it; one
that ends lets its connections go first.
*/}}
{{- define "model-service.router" -}}
{{- $router := .Values.rollouts.router -}}
{{- $keeper := include "model-service.fullname" (dict "context" . "suffix" "rollouts") -}}
{{- $scheduling := merge (dict "replicas" $router.replicas) (pick .Values "nodeSelector" "tolerations" "affinity" "priorityClassName") -}}
apiVersion: apps/v1
kind: Deployment
metadata:
  {{- include "model-service.meta" (dict "context" . "suffix" "router" "component" "router") | nindent 2 }}
spec:
  replicas: {{ $router.replicas }}
  strategy: {type: RollingUpdate, rollingUpdate: {maxSurge: 1, maxUnavailable: 0}}
  selector:
    matchLabels: {{- include "fairlead.selectorLabels" (dict "context" . "component" "router") | nindent 6 }}
  template:
    metadata:
      labels: {{- include "fairlead.podLabels" (dict "context" . "component" "router" "needs" list) | nindent 8 }}
    spec:
      {{- include "fairlead.podSpec" (dict "context" . "component" "router" "values" $scheduling "serviceAccountName" (include "model-service.serviceAccountName" .)) | nindent 6 }}
      initContainers:
        - name: configure
          {{- include "fairlead.container" (dict "context" . "values" (dict "extraEnvFrom" list) "image" (include "model-service.image" . | fromYaml) "resources" $router.resources) | nindent 10 }}
          command: [python, -m, services.rollout.bootstrap, {{ printf "--keeper=%s:9111" $keeper | quote }}, {{ printf "--host=%s" (include "fairlead.bind" (dict "context" .)) | quote }}, {{ printf "--grpc-port=%d" (.Values.config.grpc_port | default 0 | int) | quote }}, --to=/etc/envoy/envoy.json]
          volumeMounts: [{name: config, mountPath: /etc/envoy}]
      containers:
        - name: envoy
          {{- include "fairlead.container" (dict "context" . "values" (dict "extraEnvFrom" list) "image" $router.image "resources" $router.resources) | nindent 10 }}
          args: [-c, /etc/envoy/envoy.json, --concurrency, {{ $router.threads | quote }}, --disable-hot-restart, --log-level, warn, --drain-time-s, "10"]
          ports:
            - {name: http, containerPort: 3000}
            {{- with .Values.config.grpc_port }}
            - {name: grpc, containerPort: {{ . | int }}}
            {{- end }}
            - {name: told, containerPort: 9902}
          lifecycle: {preStop: {httpGet: {path: /drain, port: told}}}
          startupProbe: {httpGet: {path: /readyz, port: http}, periodSeconds: 1, timeoutSeconds: 3, failureThreshold: 600}
          readinessProbe: {httpGet: {path: /readyz, port: http}, periodSeconds: 5, timeoutSeconds: 3}
          livenessProbe: {httpGet: {path: /ready, port: told}, periodSeconds: 10, timeoutSeconds: 5, failureThreshold: 6}
          volumeMounts: [{name: config, mountPath: /etc/envoy, readOnly: true}]
      volumes: [{name: config, emptyDir: {sizeLimit: 1Mi}}]
{{- end -}}
