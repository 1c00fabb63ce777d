{{/* Refuse jobs that KubeRay would refuse or that would never start. */}}

{{- define "awares.refuseJobs" }}
{{- range $name, $given := .Values.jobs }}
{{- $job := include "awares.job" (dict "root" $ "job" $given) | fromYaml }}
{{- if $job.enabled }}
{{- include "awares.refuseJob" (dict "root" $ "path" (printf "jobs.%s" $name) "name" $name "job"
    $job "given" $given) }}
{{- end }}
{{- end }}
{{- if and .Values.tests.enabled .Values.tests.doctor.enabled }}
{{- if .Values.cluster.enabled }}
{{- include "awares.refuseSize" (dict "root" . "path" "tests.doctor" "name" "doctor" "job"
    (dict "cluster" "shared" "before" list)) }}
{{- else }}
tests.doctor.enabled=true needs the RayCluster: set cluster.enabled=true, or run jobs.doctor on a
  cluster of its own
{{- end }}
{{- end }}
{{- end }}

{{/* Refuse wrong values of one job. Input: root, path (of the job in values.yaml), name, given (the
job's values), job (the values merged over jobDefaults). */}}
{{- define "awares.refuseJob" }}
{{- $root := .root }}{{ $job := .job }}{{ $path := .path }}
{{- $policies := list }}{{ range $job.deletionRules }}{{ $policies = append $policies
    .policy }}{{ end }}
{{- if and $job.deletionRules (not (kindIs "invalid" $job.ttlSecondsAfterFinished)) }}
{{ $path }}.deletionRules and {{ $path }}.ttlSecondsAfterFinished={{ $job.ttlSecondsAfterFinished }}
  are two ways to clean up, and KubeRay accepts only one: remove one of them
{{- end }}
{{- if and $job.deletionRules (eq $job.cluster "own")
    (or $job.suspend (eq $root.Values.queue.kind "kueue")) }}
{{ $path }}.deletionRules cannot be combined with
  {{ $job.suspend | ternary "suspend" "queue.kind=kueue, which suspends jobs" }}: use
  {{ $path }}.ttlSecondsAfterFinished instead
{{- end }}
{{- if and (has "DeleteWorkers" $policies) $root.Values.cluster.autoscaler.enabled }}
{{ $path }}.deletionRules with DeleteWorkers cannot be combined with cluster.autoscaler.enabled,
  which would start the workers again: use DeleteCluster, or set cluster.autoscaler.enabled=false
{{- end }}
{{- $seen := list }}
{{- range $job.deletionRules }}
{{- $rule := printf "%s on %s" .policy (.condition.jobStatus | default
    .condition.jobDeploymentStatus) }}
{{- if has $rule $seen }}
{{ $path }}.deletionRules contain {{ $rule }} twice: remove one of them
{{- end }}
{{- $seen = append $seen $rule }}
{{- end }}
{{- if eq $job.cluster "shared" }}
{{- include "awares.refuseSharedJob" (dict "root" $root "path" $path "job" $job "given" .given
    "policies" $policies) }}
{{- else }}
{{- range $job.groups }}
{{- if not (hasKey $root.Values.cluster.groups .) }}
{{ $path }}.groups names {{ . }}, which is not in cluster.groups: use one of
  {{ keys $root.Values.cluster.groups | sortAlpha | join ", " }}
{{- end }}
{{- end }}
{{- end }}
{{- include "awares.refuseSize" . }}
{{- if has .name $job.before }}
{{ $path }}.before names the job itself: remove {{ .name }}
{{- end }}
{{- end }}

{{/* Refuse values that a job on the shared cluster cannot have. Input: root, path, given and job as
in awares.refuseJob, and policies (of the job's deletion rules). */}}
{{- define "awares.refuseSharedJob" }}
{{- if not .root.Values.cluster.enabled }}
{{ .path }}.cluster=shared needs the RayCluster: set cluster.enabled=true, or
  {{ .path }}.cluster=own
{{- end }}
{{- if or .job.suspend (gt (int (get .given "backoffLimit")) 0)
    (not (kindIs "invalid" .job.ttlSecondsAfterFinished)) }}
{{ .path }}.cluster=shared allows neither suspend nor backoffLimit nor ttlSecondsAfterFinished,
  because they need a cluster of the job's own: remove them, or set {{ .path }}.cluster=own
{{- end }}
{{- range .policies }}
{{- if has . (list "DeleteCluster" "DeleteWorkers") }}
{{ $.path }}.deletionRules with {{ . }} would delete a shared cluster: use DeleteSelf or DeleteNone,
  or set {{ $.path }}.cluster=own
{{- end }}
{{- end }}
{{- end }}
