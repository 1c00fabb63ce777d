{{/* Ray Serve's configuration: what `awares serve` runs, from the same values. */}}

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

{{/* Only what a replica reads: a changed sft.learning_rate must not replace replicas. One that follows a run reads its data's name, too. */}}
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
