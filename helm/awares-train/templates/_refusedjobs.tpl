{{/* Jobs that KubeRay would refuse, or that would never start. */}}

{{- define "awares.refuseJobs" }}
{{- range $name, $given := .Values.jobs }}
{{- $job := include "awares.job" (dict "root" $ "job" $given) | fromYaml }}
{{- if $job.enabled }}
{{- include "awares.refuseJob" (dict "root" $ "path" (printf "jobs.%s" $name) "name" $name "job" $job "given" $given) }}
{{- end }}
{{- end }}
{{- end }}

{{/* Input: root, path, name, given, job (given over the defaults). */}}
{{- define "awares.refuseJob" }}
{{- $root := .root }}{{ $job := .job }}{{ $path := .path }}
{{- $policies := list }}{{ range $job.deletionRules }}{{ $policies = append $policies .policy }}{{ end }}
{{- if and $job.deletionRules (not (kindIs "invalid" $job.ttlSecondsAfterFinished)) }}
{{ $path }}.deletionRules and {{ $path }}.ttlSecondsAfterFinished={{ $job.ttlSecondsAfterFinished }} are two ways to clean up, of which
  KubeRay takes one: leave the other out
{{- end }}
{{- if and $job.deletionRules (eq $job.cluster "own") (or $job.suspend (eq $root.Values.queue.kind "kueue")) }}
{{ $path }}.deletionRules cannot be with {{ $job.suspend | ternary "suspend" "queue.kind=kueue, which suspends jobs" }}: use
  {{ $path }}.ttlSecondsAfterFinished instead
{{- end }}
{{- if and (has "DeleteWorkers" $policies) $root.Values.cluster.autoscaler.enabled }}
{{ $path }}.deletionRules with DeleteWorkers cannot be with cluster.autoscaler.enabled, which would bring the workers back: use
  DeleteCluster, or switch the autoscaler off
{{- end }}
{{- $seen := list }}
{{- range $job.deletionRules }}
{{- $rule := printf "%s on %s" .policy (.condition.jobStatus | default .condition.jobDeploymentStatus) }}
{{- if has $rule $seen }}
{{ $path }}.deletionRules say {{ $rule }} twice: leave one of them out
{{- end }}
{{- $seen = append $seen $rule }}
{{- end }}
{{- if eq $job.cluster "shared" }}
{{- include "awares.refuseSharedJob" (dict "root" $root "path" $path "job" $job "given" .given "policies" $policies) }}
{{- else }}
{{- range $job.groups }}
{{- if not (hasKey $root.Values.cluster.groups .) }}
{{ $path }}.groups names {{ . }}, which is none of cluster.groups: {{ keys $root.Values.cluster.groups | sortAlpha | join ", " }}
{{- end }}
{{- end }}
{{- end }}
{{- include "awares.refuseSize" . }}
{{- if has .name $job.before }}
{{ $path }}.before names the job itself: leave {{ .name }} out
{{- end }}
{{- end }}

{{/* Input: root, path, given, job, policies. */}}
{{- define "awares.refuseSharedJob" }}
{{- if not .root.Values.cluster.enabled }}
{{ .path }}.cluster=shared needs the RayCluster: set cluster.enabled=true, or {{ .path }}.cluster=own
{{- end }}
{{- if or .job.suspend (gt (int (get .given "backoffLimit")) 0) (not (kindIs "invalid" .job.ttlSecondsAfterFinished)) }}
{{ .path }}.cluster=shared takes neither suspend nor backoffLimit nor ttlSecondsAfterFinished, which are for a cluster of its own: leave
  them out, or set {{ .path }}.cluster=own
{{- end }}
{{- range .policies }}
{{- if has . (list "DeleteCluster" "DeleteWorkers") }}
{{ $.path }}.deletionRules with {{ . }} would delete a shared cluster: use DeleteSelf or DeleteNone, or set {{ $.path }}.cluster=own
{{- end }}
{{- end }}
{{- end }}
