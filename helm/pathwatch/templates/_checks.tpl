{{/* What no schema can say in words that help. Included by what is rendered in every mode. */}}
{{- define "pathwatch.checks" -}}
{{- with .Values -}}
{{- if not .image.repository -}}
{{- fail "image.repository is empty: build the image (docs/kubernetes.md), push it to a registry that your cluster reads, and name it here, such as --set image.repository=registry.example.org/team/pathwatch" -}}
{{- end -}}
{{- if gt (int .replicas) 1 -}}
{{- if ne .mode "service" -}}
{{- fail (printf "replicas is %d: mode %s has no number of its own; there is one %s" (int .replicas) .mode (ternary "on each node" "in each pod of the job" (eq .mode "relay"))) -}}
{{- end -}}
{{- if not .redis.url -}}
{{- fail (printf "replicas is %d: several pods share their runs in a Redis; name it in redis.url, or set replicas=1" (int .replicas)) -}}
{{- end -}}
{{- if and .persistence.enabled .persistence.existingClaim -}}
{{- fail (printf "replicas is %d, and persistence.existingClaim is one claim: set persistence.enabled=false, the runs are in Redis" (int .replicas)) -}}
{{- end -}}
{{- end -}}
{{- if and .tls.enabled .insecure -}}
{{- fail "tls.enabled and insecure contradict each other; choose one" -}}
{{- end -}}
{{- if and (not .redis.url) (or .redis.passwordSecret .redis.sentinelPasswordSecret .redis.caSecret .redis.clientSecret) -}}
{{- fail "the secrets of redis are of no use without redis.url" -}}
{{- end -}}
{{- if include "pathwatch.isShard" $ -}}
{{- range .extraEnv -}}
{{- if has .name (list "POD_NAME" "PATHWATCH_SHARD") -}}
{{- fail (printf "extraEnv sets %s: the chart does, so that each pod has a name of its own; leave it out" .name) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- include "pathwatch.relayChecks" $ -}}
{{- if eq .mode "sidecar" -}}
{{- if .tls.enabled -}}
{{- fail "tls.enabled is for modes service and relay: a sidecar listens for its own pod alone, on 127.0.0.1" -}}
{{- end -}}
{{- if not .insecure -}}
{{- fail "mode sidecar: metrics and status page are plaintext on the address of the job's pod, where the kubelet and Prometheus reach them; set insecure=true if the network is trusted" -}}
{{- end -}}
{{- if and .persistence.enabled (not .persistence.existingClaim) (not .relay.upstream) -}}
{{- fail "mode sidecar: the job's pod brings no claim; name one in persistence.existingClaim, or set persistence.enabled=false to forget the run with the pod" -}}
{{- end -}}
{{- else -}}
{{- if not (or .tls.enabled .insecure) -}}
{{- fail (printf "mode %s would carry plaintext between pods: set tls.enabled=true with tls.existingSecret or tls.certManager.enabled, or insecure=true if the network is trusted" .mode) -}}
{{- end -}}
{{- end -}}
{{- if and .tls.enabled .tls.certManager.enabled .tls.existingSecret -}}
{{- fail "tls.existingSecret and tls.certManager.enabled are both given; choose one" -}}
{{- end -}}
{{- if and .tls.enabled (not .tls.certManager.enabled) (not .tls.existingSecret) -}}
{{- fail "tls.enabled needs a certificate: tls.existingSecret, with the keys tls.crt and tls.key, or tls.certManager.enabled=true" -}}
{{- end -}}
{{- if and .tls.certManager.enabled (not .tls.certManager.issuer.name) -}}
{{- fail "tls.certManager.issuer.name is empty: name an Issuer of this namespace, or a ClusterIssuer with tls.certManager.issuer.kind" -}}
{{- end -}}
{{- if and (not .tls.enabled) (or .tls.clientCaSecret .tls.existingSecret .tls.certManager.enabled) -}}
{{- fail "tls.clientCaSecret, tls.existingSecret and tls.certManager are of no use without tls.enabled=true" -}}
{{- end -}}
{{- if and .monitoring.scrape.enabled .httpTokens.existingSecret (not .monitoring.scrape.tokenSecret) -}}
{{- fail "monitoring.scrape.tokenSecret is empty, but httpTokens asks Prometheus for a token: name a secret whose key token holds one with the scope read" -}}
{{- end -}}
{{- if and (ne .mode "sidecar") .networkPolicy.enabled (not .networkPolicy.egress) (or .redis.url .relay.upstream .webhooks.existingSecret .server.otlp.endpoint) -}}
{{- fail "networkPolicy.egress is empty, but redis.url, relay.upstream, webhooks or server.otlp.endpoint need a way out: allow where it leads, name server included" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "pathwatch.relayChecks" -}}
{{- with .Values -}}
{{- if .relay.upstream -}}
{{- if eq .mode "service" -}}
{{- fail "relay.upstream is for modes relay and sidecar: a service keeps what it is sent" -}}
{{- end -}}
{{- if and .relay.insecure (or .relay.caSecret .relay.clientSecret) -}}
{{- fail "relay.insecure is plaintext to the upstream, for which relay.caSecret and relay.clientSecret are of no use; choose one" -}}
{{- end -}}
{{- if or .redis.url .webhooks.existingSecret .server.otlp.endpoint .persistence.existingClaim -}}
{{- fail "a relay keeps nothing and tells nobody: redis.url, webhooks.existingSecret, server.otlp.endpoint and persistence.existingClaim are for the service at relay.upstream" -}}
{{- end -}}
{{- else -}}
{{- if eq .mode "relay" -}}
{{- fail "relay.upstream is empty: name the service as clients are given it, such as dns:///watch-pathwatch-headless.pathwatch.svc:50051" -}}
{{- end -}}
{{- if or .relay.insecure .relay.caSecret .relay.clientSecret .relay.tokenSecret -}}
{{- fail "relay.insecure and the secrets of relay are of no use without relay.upstream" -}}
{{- end -}}
{{- end -}}
{{- if and .relay.hostPort (ne .mode "relay") -}}
{{- fail (printf "relay.hostPort is for mode relay: mode %s has no pod on each node" .mode) -}}
{{- end -}}
{{- if and (eq .mode "relay") (ne .service.type "ClusterIP") -}}
{{- fail (printf "service.type is %s: a relay is for the pods of its own node, which reach it by a ClusterIP" .service.type) -}}
{{- end -}}
{{- end -}}
{{- end -}}
