{{/* The configuration of Ray Serve. It runs the same application as `awares serve`. */}}

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
      {{- include "awares.serveArgs" . | nindent 6 }}
{{- end }}

{{/* The settings that a replica reads, and no others. A changed sft.learning_rate, for example,
must not replace replicas. A replica that follows a run also reads data.name, data.image_cache and
grpo.start. */}}
{{- define "awares.serveArgs" -}}
{{- $setup := include "awares.setup" . | fromYaml -}}
{{- $read := pick $setup "run" "store" "policy" "method" "engine" "serve" -}}
{{- if eq (include "awares.setting" (list . "serve" "follow")) "true" -}}
{{- range $section, $keys := dict "data" (list "name" "image_cache") "grpo" (list "start") -}}
{{- $kept := dict -}}
{{- range $key, $value := get $setup $section | default dict -}}
{{- if has $key $keys }}{{ $_ := set $kept $key $value }}{{ end -}}
{{- end -}}
{{- if $kept }}{{ $_ := set $read $section $kept }}{{ end -}}
{{- end -}}
{{- end -}}
{{ toYaml $read }}
{{- end }}
