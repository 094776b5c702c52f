{{/* platform.modelRouterProviders: egress rules to the ports of outside backends; a name is no address that a policy could hold. */}}
{{- define "platform.modelRouterProviders" -}}
{{- $ports := list -}}
{{- range (.Values.modelRouter.config.backends | default dict) -}}
{{- if .outside -}}
{{- $url := urlParse .url -}}
{{- $known := ternary 443 80 (eq $url.scheme "https") -}}
{{- $ports = append $ports (ternary (last (splitList ":" $url.host) | int) $known (contains ":" $url.host)) -}}
{{- end -}}
{{- end -}}
{{- if $ports }}
- to: {{ include "fairlead.np.block" (dict "context" . "cidr" "0.0.0.0/0") }}
  ports: {{ include "fairlead.np.ports" (dict "ports" (uniq $ports)) }}
{{- else -}}
[]
{{- end -}}
{{- end -}}

{{/* platform.validateModelRouter: what cannot work, with the key that mends it. */}}
{{- define "platform.validateModelRouter" -}}
{{- with .Values.modelRouter -}}
{{- if and .enabled (or (not .config.backends) (not .config.routes)) -}}
{{- fail "modelRouter.enabled without anything to route to. Fix: set modelRouter.config.backends and modelRouter.config.routes" -}}
{{- end -}}
{{- if and .enabled (or .config.keys_file .config.redis) -}}
{{- fail "modelRouter.config has keys_file or redis, which the chart sets. Fix: use modelRouter.keys.name and modelRouter.redis.name" -}}
{{- end -}}
{{- if and .enabled (gt (int .replicas) 1) .config.budgets (not .redis.name) -}}
{{- fail "modelRouter.replicas is more than 1 and budgets are counted in each pod alone. Fix: set modelRouter.redis.name, or modelRouter.replicas=1" -}}
{{- end -}}
{{- $variables := list -}}
{{- range .providerKeys }}{{ $variables = append $variables .variable }}{{ end -}}
{{- $more := list -}}
{{- range .extraEnv }}{{ $more = append $more .name }}{{ end -}}
{{- range $name, $backend := (.config.backends | default dict) -}}
{{- if and $.Values.modelRouter.enabled $backend.key (not (has $backend.key (concat $variables $more))) (not $.Values.modelRouter.extraEnvFrom) -}}
{{- fail (printf "modelRouter.config.backends.%s names the key %s, which no Secret gives. Fix: add it to modelRouter.providerKeys" $name $backend.key) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
