{{/* A dashboard as JSON, with links to the runbooks where these are read, without where that is not said. */}}
{{- define "pathwatch.dashboard" -}}
{{- $runbooks := .context.Values.monitoring.runbooks -}}
{{- $text := .context.Files.Get (printf "files/dashboards/%s.json" .name) -}}
{{- with $runbooks -}}
{{- $text = replace "\"docs/runbooks/" (printf "\"%s" .) $text -}}
{{- end -}}
{{- $board := fromJson $text -}}
{{- range $board.templating.list -}}
{{- if eq .name "scheme" -}}
{{- $_ := set . "query" (ternary "https" "http" $.context.Values.tls.enabled) -}}
{{- end -}}
{{- end -}}
{{- if not $runbooks -}}
{{- range $board.panels -}}
{{- $_ := unset . "links" -}}
{{- end -}}
{{- end -}}
{{- toRawJson $board -}}
{{- end -}}
