{{/* Ray Serve's configuration: what `awares serve` runs, from the same values. */}}

{{/* Only the sections that a replica reads: a changed sft.learning_rate must not replace replicas. */}}
{{- define "awares.serveConfig" -}}
proxy_location: EveryNode
http_options:
  host: 0.0.0.0
  port: 8000
applications:
  - name: awares
    route_prefix: /
    import_path: awares_platform.serve.app:build
    args:
      {{- pick (include "awares.setup" . | fromYaml) "run" "store" "policy" "method" "engine" "serve" | toYaml | nindent 6 }}
{{- end }}
