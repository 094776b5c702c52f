{{/*
fairlead.storageClass: the class of "persistence": its own, else global.storageClass, else none (the cluster's default).
*/}}
{{- define "fairlead.storageClass" -}}
{{- .persistence.storageClass | default ((.context.Values.global | default dict).storageClass) | default "" -}}
{{- end -}}

{{/*
fairlead.claim: a PersistentVolumeClaim that an uninstall leaves, from "persistence" {enabled, size, storageClass}; none when
existingClaim names one. It is no
volumeClaimTemplate, so that it can grow by value. What cannot be changed on an existing claim fails here, with the cure.
*/}}
{{- define "fairlead.claim" -}}
{{- if and .persistence.enabled (not .persistence.existingClaim) -}}
{{- $name := include "fairlead.partName" . -}}
{{- $class := include "fairlead.storageClass" . -}}
{{- $old := lookup "v1" "PersistentVolumeClaim" .context.Release.Namespace $name -}}
{{- if $old -}}
  {{- if and $class (ne $class ($old.spec.storageClassName | default "")) -}}
  {{- fail (printf "PersistentVolumeClaim %s has storage class %q, which cannot become %q. Fix: leave storageClass as it was, or back up, delete the claim and install again" $name ($old.spec.storageClassName | default "") $class) -}}
  {{- end -}}
  {{- $now := include "fairlead.bytes" $old.spec.resources.requests.storage | int64 -}}
  {{- if lt (include "fairlead.bytes" .persistence.size | int64) $now -}}
  {{- fail (printf "PersistentVolumeClaim %s has %s, which cannot shrink to %s. Fix: set persistence.size to at least %s" $name $old.spec.resources.requests.storage .persistence.size $old.spec.resources.requests.storage) -}}
  {{- end -}}
{{- else -}}
  {{- include "fairlead.requireStorageClass" (dict "context" .context "name" $name "class" $class "key" "global.storageClass" "else" "use external stores (values-production.yaml)") -}}
{{- end -}}
apiVersion: v1
kind: PersistentVolumeClaim
metadata:
  {{- include "fairlead.metadata" . | nindent 2 }}
  annotations: {helm.sh/resource-policy: keep}
spec:
  accessModes: [ReadWriteOnce]
  {{- with $class }}
  storageClassName: {{ . }}
  {{- end }}
  resources: {requests: {storage: {{ .persistence.size }}}}
{{- end -}}
{{- end -}}

{{/*
fairlead.requireStorageClass: fails when the cluster has no storage class "class", or with an empty one no default; says nothing
without a cluster, or when `global.checkStorageClass` is false. "name" is the claim, "key" the value that names a class, "else"
what can be done without one.
*/}}
{{- define "fairlead.requireStorageClass" -}}
{{- $classes := dict -}}
{{- if ne (toString ((.context.Values.global | default dict).checkStorageClass)) "false" -}}
{{- $classes = lookup "storage.k8s.io/v1" "StorageClass" "" "" -}}
{{- end -}}
{{- if hasKey $classes "items" -}}
  {{- $default := "" -}}{{- $names := list -}}
  {{- range $classes.items -}}
    {{- $names = append $names .metadata.name -}}
    {{- if eq (get (.metadata.annotations | default dict) "storageclass.kubernetes.io/is-default-class") "true" -}}{{- $default = .metadata.name -}}{{- end -}}
  {{- end -}}
  {{- if and .class (not (has .class $names)) -}}
  {{- fail (printf "%s: there is no storage class %q; the cluster has: %s. Fix: set %s to one of them, or %s" .name .class (join ", " $names | default "none") .key .else) -}}
  {{- else if and (not .class) (not $default) -}}
  {{- fail (printf "%s needs a volume, and the cluster has no default storage class; it has: %s. Fix: set %s to one of them, or %s" .name (join ", " $names | default "none") .key .else) -}}
  {{- end -}}
{{- end -}}
{{- end -}}

{{/* fairlead.bytes: a quantity such as 2Gi in bytes. */}}
{{- define "fairlead.bytes" -}}
{{- $quantity := toString . -}}
{{- $units := dict "Ki" 1024 "Mi" 1048576 "Gi" 1073741824 "Ti" 1099511627776 "k" 1000 "M" 1000000 "G" 1000000000 "T" 1000000000000 -}}
{{- $unit := regexFind "[A-Za-z]+$" $quantity -}}
{{- $factor := index $units $unit | default 1 -}}
{{- mulf (trimSuffix $unit $quantity | float64) $factor | int64 -}}
{{- end -}}

{{/* fairlead.volume: the pod's volume "data" for "persistence". */}}
{{- define "fairlead.volume" -}}
- name: data
  {{- if .persistence.enabled }}
  persistentVolumeClaim: {claimName: {{ .persistence.existingClaim | default (include "fairlead.partName" .) }}}
  {{- else }}
  emptyDir: {}
  {{- end }}
{{- end -}}

{{/*
fairlead.generatedSecret: a Secret whose values are made once and kept on every upgrade, and after an uninstall as long as the
volumes that they open. "keys" are generated (32 letters and digits), "value" is the key of the values file that names a Secret
instead. What renders without a cluster cannot read the old one, and makes new values each time.
*/}}
{{- define "fairlead.generatedSecret" -}}
{{- $name := .name -}}
{{- include "fairlead.mayGenerate" (dict "context" .context "value" .value "fix" (printf "kubectl -n %s create secret generic %s --from-literal=%s=... and set %s=%s"
    .context.Release.Namespace $name (join "=... --from-literal=" .keys) .value $name)) -}}
{{- $old := (lookup "v1" "Secret" .context.Release.Namespace $name).data | default dict -}}
apiVersion: v1
kind: Secret
metadata:
  {{- include "fairlead.metadata" . | nindent 2 }}
  annotations: {helm.sh/resource-policy: keep}
type: Opaque
data:
  {{- range .keys }}
  {{ . }}: {{ index $old . | default (randAlphaNum 32 | b64enc) }}
  {{- end }}
{{- end -}}

{{/* fairlead.saltSecret: the Secret with the salt of the platform's prediction log, which all models share. */}}
{{- define "fairlead.saltSecret" -}}
{{- ((.context.Values.global | default dict).predictions | default dict).existingSecret | default (include "fairlead.partName" (dict "context" .context "component" "predictions")) -}}
{{- end -}}

{{/* fairlead.s3Issues: "true" where the embedded S3 makes keys of its own for models and for what watches them, else nothing. */}}
{{- define "fairlead.s3Issues" -}}
{{- $global := .context.Values.global | default dict -}}
{{- $s3 := $global.s3 | default dict -}}
{{- $off := list $s3.endpoint (eq (toString ($global.secrets | default dict).generate) "false") (eq (toString ($s3.keys | default dict).generate) "false") -}}
{{- if not (or (first $off) (index $off 1) (last $off)) }}true{{ end -}}
{{- end -}}

{{/*
fairlead.s3Secret: the Secret with the S3 key of "who", models or watchers: `global.s3.keys`, else what the embedded S3 makes, else that of the
whole platform.
*/}}
{{- define "fairlead.s3Secret" -}}
{{- $s3 := (.context.Values.global | default dict).s3 | default dict -}}
{{- $given := index ($s3.keys | default dict) .who -}}
{{- if $given -}}{{- $given -}}
{{- else if include "fairlead.s3Issues" . -}}{{- include "fairlead.partName" (dict "context" .context "component" (printf "s3-%s" .who)) -}}
{{- else -}}{{- (include "fairlead.part" (dict "context" .context "part" "s3") | fromYaml).secret -}}
{{- end -}}
{{- end -}}

{{/* fairlead.mayGenerate: fails when `global.secrets.generate` is false; "value" is the key that names a Secret instead. */}}
{{- define "fairlead.mayGenerate" -}}
{{- if eq (toString ((.context.Values.global | default dict).secrets | default dict).generate) "false" -}}
{{- fail (printf "%s is empty, so its Secret would be generated, and global.secrets.generate is false. Fix: %s" .value .fix) -}}
{{- end -}}
{{- end -}}

{{/*
fairlead.requireSecret: fails when "secret" is not in the namespace or lacks one of "keys"; says nothing without a cluster.
"value" is the key of the values file that names it.
*/}}
{{- define "fairlead.requireSecret" -}}
{{- $namespace := .context.Release.Namespace -}}
{{- if hasKey (lookup "v1" "Secret" $namespace "") "items" -}}
{{- $found := lookup "v1" "Secret" $namespace .secret -}}
{{- if not $found -}}
{{- fail (printf "%s names Secret %q, which is not in namespace %s. Fix: kubectl -n %s create secret generic %s --from-literal=%s=..." .value .secret $namespace $namespace .secret (join "=... --from-literal=" .keys)) -}}
{{- end -}}
{{- range .keys -}}
{{- if not (hasKey ($found.data | default dict) .) -}}
{{- fail (printf "%s names Secret %q, which has no key %q; it has: %s. Fix: add the key" $.value $.secret . (keys ($found.data | default dict) | sortAlpha | join ", ")) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
