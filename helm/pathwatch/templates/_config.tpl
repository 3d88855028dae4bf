{{/* The file of `pathwatch serve --config`: options by name. */}}
{{- define "pathwatch.config" -}}
{{- $sidecar := eq .Values.mode "sidecar" -}}
{{- if .Values.relay.upstream -}}
{{ include "pathwatch.upstreamOptions" . }}
{{- else -}}
{{ include "pathwatch.dataOptions" . }}
{{- end }}
listen: {{ ternary "127.0.0.1:50051" "0.0.0.0:50051" $sidecar | quote }}
http: "0.0.0.0:9464"
log_format: json
{{- with .Values }}
log_level: {{ .server.logLevel }}
max_connection_age: {{ .server.maxConnectionAge }}
{{- if .insecure }}
insecure: true
{{- end }}
{{- if .tls.enabled }}
tls_cert: /etc/pathwatch/tls/tls.crt
tls_key: /etc/pathwatch/tls/tls.key
http_tls: true
{{- if .tls.clientCaSecret }}
tls_client_ca: /etc/pathwatch/client-ca/ca.crt
{{- end }}
{{- end }}
{{- if .tokens.existingSecret }}
tokens: /etc/pathwatch/tokens/{{ .tokens.key }}
{{- end }}
{{- if .httpTokens.existingSecret }}
http_tokens: /etc/pathwatch/http-tokens/{{ .httpTokens.key }}
{{- end }}
{{- with .server.limits }}
limits: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
{{- end -}}

{{/* Of a server of its own: what it keeps, where, and whom it tells. */}}
{{- define "pathwatch.dataOptions" -}}
data: /var/lib/pathwatch/data
{{- with .Values }}
snapshot_minutes: {{ .server.snapshotMinutes }}
finished_series_seconds: {{ .server.finishedSeriesSeconds }}
{{- with .server.publicUrl }}
public_url: {{ . | quote }}
{{- end }}
{{- with .server.otlp }}
{{- if .endpoint }}
otlp_endpoint: {{ .endpoint | quote }}
otlp_interval_seconds: {{ .intervalSeconds }}
{{- end }}
{{- end }}
{{- if .webhooks.existingSecret }}
webhooks: /etc/pathwatch/webhooks/{{ .webhooks.key }}
{{- end }}
{{- with .redis }}
{{- if .url }}
store: {{ .url | quote }}
{{- if include "pathwatch.isShard" $ }}
lease_seconds: {{ $.Values.server.leaseSeconds }}
{{- end }}
redis_wait_replicas: {{ .waitReplicas }}
redis_timeout_seconds: {{ .timeoutSeconds }}
{{- if .passwordSecret }}
redis_password_file: /etc/pathwatch/redis/password
{{- end }}
{{- if .sentinelPasswordSecret }}
redis_sentinel_password_file: /etc/pathwatch/redis-sentinel/password
{{- end }}
{{- if .caSecret }}
redis_ca: /etc/pathwatch/redis-ca/ca.crt
{{- end }}
{{- if .clientSecret }}
redis_cert: /etc/pathwatch/redis-client/tls.crt
redis_key: /etc/pathwatch/redis-client/tls.key
{{- end }}
{{- end }}
{{- end }}
{{- end }}
{{- end -}}

{{/* Of a relay: whom it passes everything on to. */}}
{{- define "pathwatch.upstreamOptions" -}}
{{- with .Values.relay -}}
upstream: {{ .upstream | quote }}
{{- if .insecure }}
upstream_insecure: true
{{- end }}
{{- if .caSecret }}
upstream_ca: /etc/pathwatch/upstream-ca/ca.crt
{{- end }}
{{- if .clientSecret }}
upstream_cert: /etc/pathwatch/upstream-client/tls.crt
upstream_key: /etc/pathwatch/upstream-client/tls.key
{{- end }}
{{- if .tokenSecret }}
upstream_token_file: /etc/pathwatch/upstream-token/token
{{- end }}
{{- end }}
{{- end -}}
