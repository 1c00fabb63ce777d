{{/* Build NetworkPolicies. Each policy selects pods by labels and allows one kind of their traffic,
which is called a flow. The name of the policy contains the name of the flow. In the inputs, root is
the chart's root context ($). */}}

{{/* One NetworkPolicy. Input: root, flow (name of the flow), select (additional labels),
expressions (matchExpressions), rules (policyTypes, ingress and egress, as YAML). */}}
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

{{/* The pods of one component of the release, as a NetworkPolicy peer. Input: root, component, type
(head or worker; empty for both). */}}
{{- define "awares.peer" -}}
podSelector:
  matchLabels:
    {{- include "awares.podLabels" . | nindent 4 }}
    {{- with .type }}
    ray.io/node-type: {{ . }}
    {{- end }}
{{- end }}

{{/* "yes" if the release has submitter pods, which means that a job is enabled. Otherwise empty.
*/}}
{{- define "awares.submits" -}}
{{- $found := false -}}
{{- range .Values.jobs -}}
{{- $job := include "awares.job" (dict "root" $ "job" .) | fromYaml -}}
{{- if $job.enabled }}{{ $found = true }}{{ end -}}
{{- end -}}
{{- if $found }}yes{{ end -}}
{{- end }}

{{/* The components of the release that are Ray clusters, as a JSON list: cluster, endpoint, and
job-<name> for each job with a cluster of its own. */}}
{{- define "awares.clusters" -}}
{{- $found := list -}}
{{- if .Values.cluster.enabled }}{{ $found = append $found "cluster" }}{{ end -}}
{{- if .Values.endpoint.enabled }}{{ $found = append $found "endpoint" }}{{ end -}}
{{- range $name, $given := .Values.jobs -}}
{{- $job := include "awares.job" (dict "root" $ "job" $given) | fromYaml -}}
{{- if and $job.enabled (eq $job.cluster "own") }}{{ $found = append $found
    (printf "job-%s" $name) }}{{ end -}}
{{- end -}}
{{ toJson $found }}
{{- end }}
