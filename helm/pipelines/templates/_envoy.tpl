{{/* pipelines.envoy: configuration of the proxy that lets browsers read the metadata store: gRPC-web in, gRPC out. */}}
{{- define "pipelines.envoy" -}}
{{- $metadata := include "fairlead.part" (dict "context" . "part" "metadata") | fromYaml -}}
{{- $type := "type.googleapis.com/envoy.extensions" -}}
static_resources:
  listeners:
    - address: {socket_address: {address: {{ include "fairlead.bind" (dict "context" .) | quote }}, port_value: 9090}}
      filter_chains:
        - filters:
            - name: envoy.filters.network.http_connection_manager
              typed_config:
                "@type": {{ $type }}.filters.network.http_connection_manager.v3.HttpConnectionManager
                stat_prefix: metadata
                route_config:
                  virtual_hosts:
                    - name: metadata
                      domains: ["*"]
                      routes:
                        - match: {prefix: /ml_metadata.}
                          route: {cluster: metadata, max_stream_duration: {grpc_timeout_header_max: 0s}}
                http_filters:
                  - {name: envoy.filters.http.grpc_web, typed_config: {"@type": {{ $type }}.filters.http.grpc_web.v3.GrpcWeb}}
                  - {name: envoy.filters.http.router, typed_config: {"@type": {{ $type }}.filters.http.router.v3.Router}}
  clusters:
    - name: metadata
      connect_timeout: 10s
      type: LOGICAL_DNS
      typed_extension_protocol_options:
        envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
          "@type": {{ $type }}.upstreams.http.v3.HttpProtocolOptions
          explicit_http_config: {http2_protocol_options: {}}
      load_assignment:
        cluster_name: metadata
        endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: {{ $metadata.host }}, port_value: {{ $metadata.port | int }}}}}}]}]
{{- end -}}
