{{/* platform.workbench: the component of people's workbenches, and what it has to do without. */}}
{{- define "platform.workbench" -}}
{{- $console := include "platform.console" . | fromYaml -}}
component: workbench
absent: {{ concat $console.absent (ternary (list) (list "redis") (index .Values "feature-store" "enabled")) | toJson }}
{{- end -}}

{{/* platform.validateWorkbench: sign-in that lets in nobody, or more than one. */}}
{{- define "platform.validateWorkbench" -}}
{{- $w := .Values.workbench -}}
{{- $oidc := $w.oidc -}}
{{- if and $w.users $w.existingSecret -}}
{{- include "fairlead.requireSecret" (dict "context" . "secret" $w.existingSecret "value" "workbench.existingSecret" "keys" $w.users) -}}
{{- end -}}
{{- if and $w.ingress.enabled (not $oidc.enabled) -}}
{{- fail "workbench.ingress is enabled, and a workbench would ask for a token only. Fix: set workbench.oidc.enabled=true with an issuer, or leave it off and come by kubectl port-forward" -}}
{{- end -}}
{{- if and $w.users $oidc.enabled -}}
{{- range $key := list "issuer" "existingSecret" "url" -}}
{{- if not (get $oidc $key) -}}
{{- fail (printf "workbench.oidc.enabled is true without workbench.oidc.%s. Fix: set issuer (https://...), url (https://{user}.HOST), and existingSecret to a Secret with the keys client-secret, %s" $key (join ", " $w.users)) -}}
{{- end -}}
{{- end -}}
{{- if not (regexMatch "^https?://[^/]*{user}" $oidc.url) -}}
{{- fail (printf "workbench.oidc.url is %s, which is one address for all. Fix: set workbench.oidc.url=https://{user}.HOST" $oidc.url) -}}
{{- end -}}
{{- $seen := dict -}}
{{- range $user := $w.users -}}
{{- $who := get $oidc.people $user | default "" | lower -}}
{{- if not $who -}}
{{- fail (printf "workbench.oidc.people does not say who %s is. Fix: set workbench.oidc.people.%s to the value of the claim %s" $user $user $oidc.claim) -}}
{{- end -}}
{{- if hasKey $seen $who -}}
{{- fail (printf "workbench.oidc.people: %s and %s are the same person, %s. Fix: leave one of them out of workbench.users" (get $seen $who) $user $who) -}}
{{- end -}}
{{- $_ := set $seen $who $user -}}
{{- end -}}
{{- include "fairlead.requireSecret" (dict "context" . "secret" $oidc.existingSecret "value" "workbench.oidc.existingSecret" "keys" (append $w.users "client-secret")) -}}
{{- end -}}
{{- end -}}

{{/* platform.workbenchIssuer: the egress rule to the issuer, as a list. */}}
{{- define "platform.workbenchIssuer" -}}
{{- $host := (urlParse .Values.workbench.oidc.issuer).host -}}
{{- $port := ternary (last (splitList ":" $host)) "443" (contains ":" $host) -}}
- to: {{ include "fairlead.np.block" (dict "context" . "cidr" .Values.workbench.oidc.cidr) }}
  ports: {{ include "fairlead.np.ports" (dict "ports" (list $port)) }}
{{- end -}}

{{/*
platform.workbenchSignIn: the container beside the JupyterLab of "user", whose token is in "tokens". It lets in whose claim is in the file of this
person, on every request, and shows JupyterLab the token by HTTP Basic.
*/}}
{{- define "platform.workbenchSignIn" -}}
{{- $w := .context.Values.workbench -}}
{{- $o := $w.oidc -}}
{{- $url := replace "{user}" .user $o.url -}}
- name: sign-in
  {{- include "fairlead.container" (dict "context" .context "image" $o.image "resources" $o.resources "values" dict) | nindent 2 }}
  args:
    - --provider=oidc
    - {{ printf "--oidc-issuer-url=%s" $o.issuer | quote }}
    - {{ printf "--client-id=%s" $o.clientId | quote }}
    - --code-challenge-method=S256
    - --insecure-oidc-skip-nonce=false
    - {{ printf "--oidc-email-claim=%s" $o.claim | quote }}
    - --authenticated-emails-file=/etc/sign-in/people
    {{- range $o.groups }}
    - {{ printf "--allowed-group=%s" . | quote }}
    {{- end }}
    - {{ printf "--redirect-url=%s/oauth2/callback" $url | quote }}
    - --skip-provider-button=true
    - --cookie-secure={{ hasPrefix "https:" $url }}
    - --cookie-name={{ ternary "__Host-workbench" "workbench" (hasPrefix "https:" $url) }}
    - --cookie-samesite=lax
    - --cookie-expire=12h
    - {{ printf "--http-address=%s:4180" (include "fairlead.bind" (dict "context" .context "url" true)) | quote }}
    - --upstream=http://127.0.0.1:8888/
    - --pass-basic-auth=true
    - --prefer-email-to-user=true
    - --silence-ping-logging=true
  ports: [{name: sign-in, containerPort: 4180}]
  env:
    {{- include "fairlead.secretEnv" (dict "name" "OAUTH2_PROXY_CLIENT_SECRET" "secret" $o.existingSecret "key" "client-secret") | nindent 4 }}
    {{- include "fairlead.secretEnv" (dict "name" "OAUTH2_PROXY_COOKIE_SECRET" "secret" $o.existingSecret "key" .user) | nindent 4 }}
    {{- include "fairlead.secretEnv" (dict "name" "OAUTH2_PROXY_BASIC_AUTH_PASSWORD" "secret" .tokens "key" .user) | nindent 4 }}
    {{- include "fairlead.extraEnv" (dict "context" .context "values" dict) | nindent 4 }}
  {{- include "fairlead.httpProbes" (dict "port" "sign-in" "ready" "/ready" "live" "/ping" "startSeconds" 120) | nindent 2 }}
  volumeMounts:
    - {name: people, mountPath: /etc/sign-in, readOnly: true}
    {{- include "fairlead.extraMounts" (dict "context" .context "values" dict) | nindent 4 }}
{{- end -}}

{{/* platform.workbenchRules: what the command line reads of releases and runs, and the logs of steps. */}}
{{- define "platform.workbenchRules" -}}
{{ include "platform.consoleRules" . }}
{{- if .Values.pipelines.enabled }}
- {apiGroups: [""], resources: [pods/log], verbs: [get]}
{{- end }}
{{- end -}}
