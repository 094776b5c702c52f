{{/*
fairlead.edges: who connects to whom. This table is the only place where it stands: network policies, the labels that they admit,
`helm test` and the tests of the charts are made from it.

servers: a name, which is that of its access label (fairlead.io/access-<name>) and of `global.<name>` where that replaces it; the
  component that answers; the ports of its pods, its address first; and the port of its Service where that is another one.
clients: a component, and as SERVER:PORT what it connects to; `kubernetes` is the Kubernetes API. Steps are the pods of Argo.
scrapes: where Prometheus reads metrics.
*/}}
{{- define "fairlead.edges" -}}
servers:
  sql: {component: mariadb, ports: [3306]}
  redis: {component: redis, ports: [6379]}
  s3: {component: s3, ports: [9000]}
  mlflow: {component: mlflow, ports: [5000]}
  prometheus: {component: prometheus, ports: [9090]}
  alertmanager: {component: alertmanager, ports: [9093]}
  pipelines: {component: ml-pipeline, ports: [8888, 8887]} # HTTP, gRPC
  metadata: {component: metadata-grpc, ports: [8080]}
  metadata-web: {component: metadata-envoy, ports: [9090]}
  controller: {component: workflow-controller, ports: [9090]}
  pipelines-ui: {component: ui, ports: [3000], service: 80}
  model: {component: server, ports: [3000], service: 80}
  console: {component: console, ports: [8600]}
  model-router: {component: model-router, ports: [8080]} # one address before models that chat
  # where versions of a model share its traffic
  router: {component: router, ports: [3000, 9902]}
  slot: {component: slot, ports: [3000]}
  rollouts: {component: rollout, ports: [9110, 9111]} # requests and metrics, what routers are told
  monitor: {component: monitor, ports: [9109]} # metrics only
  loop: {component: loop, ports: [9110]} # metrics only
  stream: {component: stream, ports: [9112]} # metrics only
clients:
  mlflow: [sql:3306, s3:9000]
  definitions: [sql:3306, redis:6379]
  stream: [sql:3306, redis:6379] # and brokers, by its values
  demo-training: [s3:9000, mlflow:5000, redis:6379]
  ml-pipeline: [sql:3306, s3:9000, kubernetes]
  persistenceagent: [pipelines:8888, pipelines:8887, kubernetes]
  scheduledworkflow: [pipelines:8887, kubernetes]
  workflow-controller: [kubernetes]
  metadata-grpc: [sql:3306]
  metadata-envoy: [metadata:8080]
  ui: [pipelines:8888, metadata-web:9090, s3:9000, kubernetes]
  publish: [pipelines:8888]
  keeper: [s3:9000, pipelines:8888, kubernetes]
  steps: [s3:9000, mlflow:5000, redis:6379, pipelines:8888, pipelines:8887, metadata:8080, kubernetes]
  prometheus: [alertmanager:9093, kubernetes]
  console: [s3:9000, mlflow:5000, pipelines:8888, prometheus:9090, model:3000, router:3000, rollouts:9110, kubernetes]
  workbench: [s3:9000, mlflow:5000, redis:6379, pipelines:8888, prometheus:9090, model:3000, router:3000, model-router:8080, rollouts:9110, kubernetes]
  model-router: [redis:6379, model:3000, router:3000] # and outside providers, by its values
  monitor: [s3:9000]
  skew: [s3:9000, mlflow:5000]
  federation: [s3:9000, mlflow:5000]
  loop: [s3:9000, mlflow:5000, pipelines:8888, prometheus:9090, rollouts:9110, kubernetes]
  # helm-test of the platform, in the place of people's own clients
  check: [sql:3306, s3:9000, redis:6379, mlflow:5000, prometheus:9090, pipelines:8888, pipelines:8887, metadata:8080, pipelines-ui:3000, console:8600]
  # a model's release; what it needs is said by its values
  server: [s3:9000, redis:6379]
  test: [model:3000, router:3000, s3:9000, redis:6379]
  slot: [s3:9000, redis:6379]
  router: [slot:3000, rollouts:9111]
  rollout: [slot:3000, router:9902, s3:9000, mlflow:5000, kubernetes]
scrapes: [pipelines:8888, controller:9090, model:3000, model-router:8080, slot:3000, rollouts:9110, alertmanager:9093, monitor:9109, loop:9110, stream:9112]
{{- end -}}

{{/* fairlead.edgesOf: what "component" connects to, in the order of the table, as a JSON list of {server, ports}; not the servers in "absent". */}}
{{- define "fairlead.edgesOf" -}}
{{- $table := include "fairlead.edges" . | fromYaml -}}
{{- include "fairlead.grouped" (dict "edges" (get $table.clients (.component | default "") | default list) "absent" .absent) -}}
{{- end -}}

{{/* fairlead.grouped: "edges" such as [pipelines:8888, pipelines:8887] as a JSON list of {server, ports}, without the servers in "absent". */}}
{{- define "fairlead.grouped" -}}
{{- $names := list -}}
{{- $ports := dict -}}
{{- range .edges -}}
{{- $words := splitList ":" . -}}
{{- $name := first $words -}}
{{- if not (has $name ($.absent | default list)) -}}
{{- $names = append $names $name | uniq -}}
{{- $_ := set $ports $name (concat (get $ports $name | default list) (rest $words)) -}}
{{- end -}}
{{- end -}}
{{- $found := list -}}
{{- range $names -}}{{- $found = append $found (dict "server" . "ports" (get $ports .)) -}}{{- end -}}
{{- toJson $found -}}
{{- end -}}

{{/* fairlead.needs: the servers that "component" connects to, as a JSON list; not those in "absent", and not the Kubernetes API. */}}
{{- define "fairlead.needs" -}}
{{- $needs := list -}}
{{- range include "fairlead.edgesOf" . | fromJsonArray -}}
{{- if ne .server "kubernetes" -}}{{- $needs = append $needs .server -}}{{- end -}}
{{- end -}}
{{- toJson $needs -}}
{{- end -}}

{{/*
fairlead.targets: for `helm test`, as JSON, where the edges of "component" lead: a list of {name, scheme, host, port, needed}; "needed" lists the
servers that must be there, whose names must be known.
*/}}
{{- define "fairlead.targets" -}}
{{- $targets := list -}}
{{- range $edge := include "fairlead.edgesOf" . | fromJsonArray -}}
{{- if eq .server "kubernetes" -}}
{{- $targets = append $targets (dict "name" "kubernetes" "scheme" "https" "host" "kubernetes.default.svc" "port" 443 "needed" true) -}}
{{- else -}}
{{- $part := include "fairlead.part" (dict "context" $.context "part" .server) | fromYaml -}}
{{- range $i, $port := .ports -}}
{{- $at := ternary $part.port (int $port) (eq (int $port) (int $part.pod)) -}}
{{- $targets = append $targets (dict "name" (printf "%s:%s" $edge.server $port) "scheme" $part.scheme "host" $part.host "port" (int $at) "needed" (has $edge.server $.needed)) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- toJson $targets -}}
{{- end -}}

{{/*
fairlead.admits: who may connect to the pods of "component", as JSON: "name" of the server (empty: it is none) and ports for "clients" (by
its access label), for "steps" and for "scrapes".
*/}}
{{- define "fairlead.admits" -}}
{{- $table := include "fairlead.edges" . | fromYaml -}}
{{- $found := dict "name" "" "clients" list "steps" list "scrapes" list -}}
{{- range $name, $server := $table.servers -}}
{{- if eq $server.component $.component -}}
{{- $_ := set $found "name" $name -}}
{{- range $port := $server.ports -}}
{{- $edge := printf "%s:%d" $name (int $port) -}}
{{- range $client, $edges := $table.clients -}}
{{- $kind := ternary "steps" "clients" (eq $client "steps") -}}
{{- if has $edge $edges -}}{{- $_ := set $found $kind (append (get $found $kind) (int $port) | uniq) -}}{{- end -}}
{{- end -}}
{{- if has $edge $table.scrapes -}}{{- $_ := set $found "scrapes" (append $found.scrapes (int $port)) -}}{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- toJson $found -}}
{{- end -}}

{{/*
fairlead.edgesPod: a pod of `helm test` with the labels of "component", which tries what the component has to reach. Takes "image", "values" (its
place), "config" (the ConfigMap with edges.py), "needed" (servers that must be there) and "absent"; it is let in by the labels of its edges, and
"step" by the label that Argo gives.
*/}}
{{- define "fairlead.edgesPod" -}}
{{- $size := dict "extraEnvFrom" list "resources" (dict "requests" (dict "cpu" "20m" "memory" "64Mi") "limits" (dict "memory" "64Mi")) -}}
{{- $place := pick (.values | default dict) "nodeSelector" "tolerations" "affinity" "priorityClassName" -}}
{{- $a := merge (dict "serviceAccountName" "default" "values" (merge $size $place)) (omit . "values") -}}
{{- $step := eq .component "steps" -}}
apiVersion: v1
kind: Pod
metadata:
  name: {{ include "fairlead.partName" (dict "context" .context "component" (printf "edges-%s" .component)) }}
  namespace: {{ .context.Release.Namespace }}
  labels:
    {{- /* A step is let in by the label that Argo gives it, and by no other. */}}
    {{- include "fairlead.podLabels" ($step | ternary (merge (dict "needs" list) $a) $a) | nindent 4 }}
    {{- if $step }}
    # Argo leaves those alone that are done.
    workflows.argoproj.io/workflow: helm-test
    workflows.argoproj.io/completed: "true"
    {{- end }}
  annotations: {helm.sh/hook: test, helm.sh/hook-delete-policy: "before-hook-creation,hook-succeeded"}
spec:
  restartPolicy: Never
  {{- include "fairlead.podSpec" $a | nindent 2 }}
  containers:
    - name: edges
      {{- include "fairlead.container" $a | nindent 6 }}
      command: [python, /edges/edges.py]
      # Never ready: a Service that has these labels for its own must not send it anything.
      readinessProbe: {exec: {command: ["false"]}, periodSeconds: 3600}
      env:
        - {name: FROM, value: {{ .component }}}
        - {name: EDGES, value: {{ include "fairlead.targets" . | quote }}}
        {{- include "fairlead.extraEnv" (dict "context" .context "values" dict) | nindent 8 }}
      volumeMounts:
        - {name: edges, mountPath: /edges, readOnly: true}
        {{- include "fairlead.extraMounts" (dict "context" .context "values" dict) | nindent 8 }}
  volumes:
    - {name: edges, configMap: {name: {{ .config }}}}
    {{- include "fairlead.extraVolumes" (dict "context" .context "values" dict) | nindent 4 }}
{{- end -}}
