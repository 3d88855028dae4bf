{{/*
For the charts of training jobs that depend on this one with `mode: sidecar`. All take the context of this chart,
`.Subcharts.pathwatch` to them:

  pathwatch.sidecar.container   an entry of initContainers; the job talks to 127.0.0.1:50051
  pathwatch.sidecar.volumes     entries of volumes
  pathwatch.sidecar.labels      labels of the pod, by which it is scraped
  pathwatch.sidecar.annotations annotations of the pod: it changes with the configuration
*/}}

{{/* A native sidecar: started, and waited for, before the job's containers, ended after them. */}}
{{- define "pathwatch.sidecar.container" -}}
- restartPolicy: Always
  {{- include "pathwatch.container" . | nindent 2 }}
{{- end -}}

{{- define "pathwatch.sidecar.volumes" -}}
{{- include "pathwatch.volumes" . | trim -}}
{{- end -}}

{{- define "pathwatch.sidecar.labels" -}}
{{- include "pathwatch.selectorLabels" . -}}
{{- end -}}

{{- define "pathwatch.sidecar.annotations" -}}
checksum/pathwatch-config: {{ include "pathwatch.config" . | sha256sum }}
{{- end -}}
