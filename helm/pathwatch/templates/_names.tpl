{{- define "pathwatch.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 52 | trimSuffix "-" -}}
{{- end -}}

{{/* Of everything but the pods, whose names are longer by a number: at most 52 characters. */}}
{{- define "pathwatch.fullname" -}}
{{- $name := include "pathwatch.name" . -}}
{{- $default := ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) -}}
{{- default $default .Values.fullnameOverride | trunc 52 | trimSuffix "-" -}}
{{- end -}}

{{- define "pathwatch.headless" -}}
{{ include "pathwatch.fullname" . }}-headless
{{- end -}}

{{/* Not empty where the pods are shards, which share a Redis: a single one, too, so that others may join it. */}}
{{- define "pathwatch.isShard" -}}
{{- if and (eq .Values.mode "service") .Values.redis.url }}yes{{ end -}}
{{- end -}}

{{- define "pathwatch.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{ default (include "pathwatch.fullname" .) .Values.serviceAccount.name }}
{{- else -}}
{{ default "default" .Values.serviceAccount.name }}
{{- end -}}
{{- end -}}

{{/* What selects the pods; never changes in the life of a release. */}}
{{- define "pathwatch.selectorLabels" -}}
app.kubernetes.io/name: {{ include "pathwatch.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: {{ .Values.mode }}
{{- end -}}

{{- define "pathwatch.labels" -}}
app.kubernetes.io/name: {{ include "pathwatch.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{- define "pathwatch.image" -}}
{{- with .Values.image -}}
{{- if .digest -}}
{{ .repository }}@{{ .digest }}
{{- else -}}
{{ .repository }}:{{ default $.Chart.AppVersion .tag }}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* The secret with the server's certificate, whoever fills it. */}}
{{- define "pathwatch.tlsSecret" -}}
{{- if .Values.tls.certManager.enabled -}}
{{ include "pathwatch.fullname" . }}-tls
{{- else -}}
{{ .Values.tls.existingSecret }}
{{- end -}}
{{- end -}}
