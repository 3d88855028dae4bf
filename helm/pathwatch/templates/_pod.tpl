{{/* The container, but for what makes it a sidecar; a list item's content. */}}
{{- define "pathwatch.container" -}}
name: pathwatch
image: {{ include "pathwatch.image" . | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
args: [serve, --config, /etc/pathwatch/config/serve.yaml]
{{- if or (include "pathwatch.isShard" .) .Values.extraEnv }}
env:
  {{- if include "pathwatch.isShard" . }}
  # Before what names it.
  - name: POD_NAME
    valueFrom: {fieldRef: {fieldPath: metadata.name}}
  # Where the other shards send those who ask them for runs of this one.
  - {name: PATHWATCH_SHARD, value: "$(POD_NAME).{{ include "pathwatch.headless" . }}.{{ .Release.Namespace }}.svc:50051"}
  {{- end }}
  {{- with .Values.extraEnv }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}
ports:
  {{- if ne .Values.mode "sidecar" }}
  - {name: grpc, containerPort: 50051, {{ with .Values.relay.hostPort }}hostPort: {{ . }}, {{ end }}protocol: TCP}
  {{- end }}
  - {name: http, containerPort: 9464, protocol: TCP}
startupProbe:
  {{- include "pathwatch.probe" . | nindent 2 }}
  periodSeconds: 2
  timeoutSeconds: 2
  failureThreshold: {{ div (add (int .Values.startupSeconds) 1) 2 }}
{{- if ne .Values.mode "sidecar" }}
readinessProbe:
  {{- include "pathwatch.probe" . | nindent 2 }}
  periodSeconds: 5
  timeoutSeconds: 5
  failureThreshold: 3
{{- end }}
# A restart costs nobody data, but a minute of signals: only for what has hung for long.
livenessProbe:
  {{- include "pathwatch.probe" . | nindent 2 }}
  periodSeconds: 15
  timeoutSeconds: 10
  failureThreshold: 6
resources: {{- toYaml .Values.resources | nindent 2 }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  runAsNonRoot: true
  runAsUser: {{ .Values.runAsUser }}
  runAsGroup: {{ .Values.runAsUser }}
  capabilities: {drop: [ALL]}
  seccompProfile: {type: RuntimeDefault}
volumeMounts:
  {{- if not .Values.relay.upstream }}
  - {name: pathwatch-data, mountPath: /var/lib/pathwatch}
  {{- end }}
  - {name: pathwatch-tmp, mountPath: /tmp}
  - {name: pathwatch-config, mountPath: /etc/pathwatch/config, readOnly: true}
  {{- range include "pathwatch.secrets" . | fromYamlArray }}
  - {name: pathwatch-{{ .folder }}, mountPath: /etc/pathwatch/{{ .folder }}, readOnly: true}
  {{- end }}
{{- end -}}

{{/* Kubelets speak no TLS with gRPC, and do not reach a sidecar's 127.0.0.1: /healthz says the same, draining included. */}}
{{- define "pathwatch.probe" -}}
{{- if or .Values.tls.enabled (eq .Values.mode "sidecar") -}}
httpGet: {path: /healthz, port: http, scheme: {{ ternary "HTTPS" "HTTP" .Values.tls.enabled }}}
{{- else -}}
grpc: {port: 50051}
{{- end -}}
{{- end -}}

{{/* Its volumes but a StatefulSet's claim for data. A relay has none. */}}
{{- define "pathwatch.volumes" -}}
{{- if not .Values.relay.upstream }}
{{- with .Values.persistence }}
{{- if not .enabled }}
- name: pathwatch-data
  emptyDir: {sizeLimit: {{ .size }}}
{{- else if .existingClaim }}
- name: pathwatch-data
  persistentVolumeClaim: {claimName: {{ .existingClaim }}}
{{- end }}
{{- end }}
{{- end }}
# SQLite sorts there what is too much for memory.
- name: pathwatch-tmp
  emptyDir: {sizeLimit: 1Gi}
- name: pathwatch-config
  configMap: {name: {{ include "pathwatch.fullname" . }}-config}
{{- range include "pathwatch.secrets" . | fromYamlArray }}
- name: pathwatch-{{ .folder }}
  secret:
    secretName: {{ .secret }}
    # Its group reads, which is that of the volumes: nobody else.
    defaultMode: 0440
    {{- with .keys }}
    items:
      {{- range . }}
      - {key: {{ . }}, path: {{ . }}}
      {{- end }}
    {{- end }}
{{- end }}
{{- end -}}

{{/* Secrets, the folder below /etc/pathwatch where each is mounted, and which keys; all, where none are named. */}}
{{- define "pathwatch.secrets" -}}
{{- with .Values }}
{{- if .tls.enabled }}
- {folder: tls, secret: {{ include "pathwatch.tlsSecret" $ }}, keys: [tls.crt, tls.key]}
{{- with .tls.clientCaSecret }}
- {folder: client-ca, secret: {{ . }}, keys: [ca.crt]}
{{- end }}
{{- end }}
{{- with .tokens }}
{{- if .existingSecret }}
- {folder: tokens, secret: {{ .existingSecret }}, keys: [{{ .key | quote }}]}
{{- end }}
{{- end }}
{{- with .httpTokens }}
{{- if .existingSecret }}
- {folder: http-tokens, secret: {{ .existingSecret }}, keys: [{{ .key | quote }}]}
{{- end }}
{{- end }}
{{- with .redis }}
{{- if .passwordSecret }}
- {folder: redis, secret: {{ .passwordSecret }}, keys: [password]}
{{- end }}
{{- if .sentinelPasswordSecret }}
- {folder: redis-sentinel, secret: {{ .sentinelPasswordSecret }}, keys: [password]}
{{- end }}
{{- if .caSecret }}
- {folder: redis-ca, secret: {{ .caSecret }}, keys: [ca.crt]}
{{- end }}
{{- if .clientSecret }}
- {folder: redis-client, secret: {{ .clientSecret }}, keys: [tls.crt, tls.key]}
{{- end }}
{{- end }}
{{- with .relay }}
{{- if .caSecret }}
- {folder: upstream-ca, secret: {{ .caSecret }}, keys: [ca.crt]}
{{- end }}
{{- if .clientSecret }}
- {folder: upstream-client, secret: {{ .clientSecret }}, keys: [tls.crt, tls.key]}
{{- end }}
{{- if .tokenSecret }}
- {folder: upstream-token, secret: {{ .tokenSecret }}, keys: [token]}
{{- end }}
{{- end }}
{{- with .webhooks.existingSecret }}
# The file names others that are beside it.
- {folder: webhooks, secret: {{ . }}}
{{- end }}
{{- end }}
{{- end -}}
