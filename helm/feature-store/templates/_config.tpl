{{/* feature-store.config: feature_store.yaml of Feast; passwords are variables that Feast fills from the environment. */}}
{{- define "feature-store.config" -}}
{{- $sql := include "fairlead.part" (dict "context" . "part" "sql") | fromYaml -}}
{{- $redis := include "fairlead.part" (dict "context" . "part" "redis") | fromYaml -}}
project: {{ .Values.registry.project }}
provider: feature_repo.stores.push.CheckedProvider
registry:
  registry_type: sql
  path: mysql+pymysql://{{ .Values.registry.user }}:${FEAST_SQL_PASSWORD}@{{ $sql.host }}:{{ $sql.port | int }}/{{ .Values.registry.database }}
  cache_ttl_seconds: 60
  sqlalchemy_config_kwargs: {pool_pre_ping: true}
offline_store: {type: feature_repo.stores.offline.DuckDBOfflineStore}
# Its password is FAIRLEAD_REDIS_PASSWORD.
online_store: {type: feature_repo.stores.online.PackedOnlineStore, address: "redis://{{ $redis.host }}:{{ $redis.port | int }}/0"}
entity_key_serialization_version: 3
materialization: {pull_latest_features: true}
{{- end -}}
