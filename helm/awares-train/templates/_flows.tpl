{{/* NetworkPolicies: a named flow each, for pods by their labels. */}}

{{/* Input: root, flow (name), select (labels beyond the release's), rules (YAML of ingress and egress). */}}
{{- define "awares.flow" -}}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: {{ include "awares.fullname" .root }}-{{ .flow }}
  namespace: {{ .root.Release.Namespace }}
  labels:
    {{- include "awares.labels" (dict "root" .root "component" "network") | nindent 4 }}
spec:
  podSelector:
    matchLabels:
      {{- include "awares.releaseLabels" .root | nindent 6 }}
      {{- with .select }}{{ toYaml . | nindent 6 }}{{ end }}
    {{- with .expressions }}
    matchExpressions:
      {{- toYaml . | nindent 6 }}
    {{- end }}
  {{- .rules | nindent 2 }}
{{ end }}

{{/* The release's pods of one component as a peer. Input: root, component, type (head or worker; nothing for both). */}}
{{- define "awares.peer" -}}
podSelector:
  matchLabels:
    {{- include "awares.podLabels" . | nindent 4 }}
    {{- with .type }}
    ray.io/node-type: {{ . }}
    {{- end }}
{{- end }}

{{/* "yes" when a job is enabled, so that submitters come. */}}
{{- define "awares.submits" -}}
{{- $found := false -}}
{{- range .Values.jobs -}}
{{- $job := include "awares.job" (dict "root" $ "job" .) | fromYaml -}}
{{- if $job.enabled }}{{ $found = true }}{{ end -}}
{{- end -}}
{{- if $found }}yes{{ end -}}
{{- end }}

{{/* Components that are Ray clusters, as a JSON list. */}}
{{- define "awares.clusters" -}}
{{- $found := list -}}
{{- if .Values.cluster.enabled }}{{ $found = append $found "cluster" }}{{ end -}}
{{- if .Values.endpoint.enabled }}{{ $found = append $found "endpoint" }}{{ end -}}
{{- range $name, $given := .Values.jobs -}}
{{- $job := include "awares.job" (dict "root" $ "job" $given) | fromYaml -}}
{{- if and $job.enabled (eq $job.cluster "own") }}{{ $found = append $found (printf "job-%s" $name) }}{{ end -}}
{{- end -}}
{{ toJson $found }}
{{- end }}
