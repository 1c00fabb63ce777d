{{/* The setup: the user's values, the values that the chart fills in, and the TOML of both. */}}

{{/* One value of the setup, or its default from setup.defaults.json, which .ci/chart.py writes.
Input: a list of root, section, key. */}}
{{- define "awares.setting" -}}
{{- $root := index . 0 -}}{{- $section := index . 1 -}}{{- $key := index . 2 -}}
{{- $defaults := get ($root.Files.Get "setup.defaults.json" | fromJson) $section | default dict -}}
{{- if not (hasKey $defaults $key) -}}
{{- fail (printf "setup.defaults.json has no %s.%s: add it to SETTINGS in .ci/chart.py and run it"
    $section $key) -}}
{{- end -}}
{{ dig $section $key (get $defaults $key) $root.Values.setup }}
{{- end }}

{{/* The whole setup as YAML: the user's values and the values that the chart fills in. */}}
{{- define "awares.setup" -}}
{{- $setup := deepCopy .Values.setup -}}
{{- $store := get $setup "store" | default dict -}}
{{- $url := printf "s3://%s/%s" .Values.store.bucket (trimAll "/" .Values.store.prefix) | trimSuffix
    "/" -}}
{{- $address := dict "url" $url "endpoint" (include "awares.storeEndpoint" .) "region"
    .Values.store.region -}}
{{- $_ := set $setup "store" (merge $address $store) -}}
{{- $_ := set $setup "run" (merge (get $setup "run" | default dict)
    (dict "directory" "/home/awares/runs")) -}}
{{- $serve := dict "host" "0.0.0.0" "port" 8000 "autoscaling"
    (include "awares.serveAutoscaling" . | fromYaml) -}}
{{- if .Values.endpoint.token.existingSecret -}}
{{- $_ := set $serve "token_env" "AWARES_SERVE_TOKEN" -}}
{{- end -}}
{{- if .Values.endpoint.keys.existingSecret -}}
{{- $_ := set $serve "keys_file" "/etc/awares-keys/keys.json" -}}
{{- end -}}
{{- $_ := set $setup "serve" (merge $serve (get $setup "serve" | default dict)) -}}
{{ toYaml $setup }}
{{- end }}

{{/* The address of the S3 server, or "none" for AWS. */}}
{{- define "awares.storeEndpoint" -}}
{{- if .Values.seaweedfs.enabled -}}
http://{{ include "awares.seaweedfsName" . }}:8333
{{- else -}}
{{ .Values.store.endpoint | default "none" }}
{{- end -}}
{{- end }}

{{- define "awares.serveAutoscaling" -}}
{{- with .Values.endpoint.autoscaling -}}
min_replicas: {{ .minReplicas }}
max_replicas: {{ .maxReplicas }}
target_ongoing_requests: {{ .targetOngoingRequests }}
upscale_delay_s: {{ .upscaleDelaySeconds }}
downscale_delay_s: {{ .downscaleDelaySeconds }}
{{- end -}}
{{- end }}

{{/* A section of the setup and its subsections, as TOML. Helm's toToml would write 4 as 4.0, which
integer keys refuse. Input: path, keys. */}}
{{- define "awares.tomlSection" -}}
[{{ .path }}]
{{- range $key, $value := .keys }}
{{- if not (kindIs "map" $value) }}
{{ if regexMatch "^[A-Za-z0-9_-]+$" $key }}{{ $key }}{{ else }}{{ $key | quote }}{{ end }} = {{ if
    kindIs "invalid" $value }}"none"{{ else }}{{ toJson $value }}{{ end }}
{{- end }}
{{- end }}
{{ range $key, $value := .keys }}
{{- if kindIs "map" $value }}
{{ include "awares.tomlSection" (dict "path" (printf "%s.%s" $.path $key) "keys" $value) }}
{{- end }}
{{- end }}
{{- end }}

{{- define "awares.toml" -}}
{{- range $section, $keys := include "awares.setup" . | fromYaml }}
{{ include "awares.tomlSection" (dict "path" $section "keys" $keys) }}
{{- end }}
{{- end }}
