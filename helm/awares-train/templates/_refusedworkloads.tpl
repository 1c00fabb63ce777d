{{/* Groups, jobs and endpoints that KubeRay would refuse, or that would never start. */}}

{{- define "awares.refuseGroups" }}
{{- $own := false }}
{{- range .Values.jobs }}
{{- $job := include "awares.job" (dict "root" $ "job" .) | fromYaml }}
{{- if and $job.enabled (eq $job.cluster "own") }}{{ $own = true }}{{ end }}
{{- end }}
{{- range $part, $used := dict "cluster" (or .Values.cluster.enabled $own) "endpoint" .Values.endpoint.enabled }}
{{- $settings := get $.Values $part }}
{{- if $used }}
{{- range $name, $given := $settings.groups }}
{{- $group := include "awares.group" (dict "root" $ "group" $given) | fromYaml }}
{{- if $group.enabled }}
{{- include "awares.refuseGroup" (dict "path" (printf "%s.groups.%s" $part $name) "group" $group) }}
{{- end }}
{{- end }}
{{- if and $settings.gcsFaultTolerance.enabled (not (regexMatch "^[^:]+:[0-9]+$" $settings.gcsFaultTolerance.redisAddress)) }}
{{ $part }}.gcsFaultTolerance.redisAddress={{ $settings.gcsFaultTolerance.redisAddress | quote }} is no address: write host:port of a Redis server
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{/* Input: path, group. */}}
{{- define "awares.refuseGroup" }}
{{- $group := .group }}
{{- if and (gt (int $group.gpus) 0) (not $group.nodeSelector) }}
{{ .path }}.gpus={{ $group.gpus }} without {{ .path }}.nodeSelector: name the nodes by a label, such as nvidia.com/gpu.product, so that a run never mixes accelerators
{{- end }}
{{- if gt (int $group.minReplicas) (int $group.maxReplicas) }}
{{ .path }}.minReplicas={{ $group.minReplicas }} exceeds maxReplicas={{ $group.maxReplicas }}: raise {{ .path }}.maxReplicas, or lower minReplicas
{{- end }}
{{- $replicas := kindIs "invalid" $group.replicas | ternary $group.minReplicas $group.replicas }}
{{- if and (le (int $group.minReplicas) (int $group.maxReplicas)) (or (lt (int $replicas) (int $group.minReplicas)) (gt (int $replicas) (int $group.maxReplicas))) }}
{{ .path }}.replicas={{ $replicas }} is not between minReplicas={{ $group.minReplicas }} and maxReplicas={{ $group.maxReplicas }}: move one of the three
{{- end }}
{{- end }}

{{- define "awares.refuseJobs" }}
{{- range $name, $given := .Values.jobs }}
{{- $job := include "awares.job" (dict "root" $ "job" $given) | fromYaml }}
{{- if $job.enabled }}
{{- include "awares.refuseJob" (dict "root" $ "path" (printf "jobs.%s" $name) "name" $name "job" $job) }}
{{- end }}
{{- end }}
{{- end }}

{{/* Input: root, path, name, job. */}}
{{- define "awares.refuseJob" }}
{{- $root := .root }}{{ $job := .job }}{{ $path := .path }}
{{- $policies := list }}{{ range $job.deletionRules }}{{ $policies = append $policies .policy }}{{ end }}
{{- if and $job.deletionRules (not (kindIs "invalid" $job.ttlSecondsAfterFinished)) }}
{{ $path }}.deletionRules and {{ $path }}.ttlSecondsAfterFinished={{ $job.ttlSecondsAfterFinished }} are two ways to clean up, of which KubeRay takes one: leave the other out
{{- end }}
{{- if and $job.deletionRules (eq $job.cluster "own") (or $job.suspend (eq $root.Values.queue.kind "kueue")) }}
{{ $path }}.deletionRules cannot be with {{ $job.suspend | ternary "suspend" "queue.kind=kueue, which suspends jobs" }}: use {{ $path }}.ttlSecondsAfterFinished instead
{{- end }}
{{- if and (has "DeleteWorkers" $policies) $root.Values.cluster.autoscaler.enabled }}
{{ $path }}.deletionRules with DeleteWorkers cannot be with cluster.autoscaler.enabled, which would bring the workers back: use DeleteCluster, or switch the autoscaler off
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
{{- include "awares.refuseSharedJob" (dict "root" $root "path" $path "job" $job "policies" $policies) }}
{{- else }}
{{- range $job.groups }}
{{- if not (hasKey $root.Values.cluster.groups .) }}
{{ $path }}.groups names {{ . }}, which is none of cluster.groups: {{ keys $root.Values.cluster.groups | sortAlpha | join ", " }}
{{- end }}
{{- end }}
{{- end }}
{{- if has .name $job.before }}
{{ $path }}.before names the job itself: leave {{ .name }} out
{{- end }}
{{- end }}

{{/* Input: root, path, job, policies. */}}
{{- define "awares.refuseSharedJob" }}
{{- if not .root.Values.cluster.enabled }}
{{ .path }}.cluster=shared needs the RayCluster: set cluster.enabled=true, or {{ .path }}.cluster=own
{{- end }}
{{- if or .job.suspend (not (kindIs "invalid" .job.ttlSecondsAfterFinished)) }}
{{ .path }}.cluster=shared takes neither suspend nor ttlSecondsAfterFinished, which are for a cluster of its own: leave them out, or set {{ .path }}.cluster=own
{{- end }}
{{- range .policies }}
{{- if has . (list "DeleteCluster" "DeleteWorkers") }}
{{ $.path }}.deletionRules with {{ . }} would delete a shared cluster: use DeleteSelf or DeleteNone, or set {{ $.path }}.cluster=own
{{- end }}
{{- end }}
{{- end }}

{{- define "awares.refuseEndpoint" }}
{{- $endpoint := .Values.endpoint }}
{{- if $endpoint.enabled }}
{{- $scale := $endpoint.autoscaling }}
{{- if gt (int $scale.minReplicas) (int $scale.maxReplicas) }}
endpoint.autoscaling.minReplicas={{ $scale.minReplicas }} exceeds maxReplicas={{ $scale.maxReplicas }}: raise endpoint.autoscaling.maxReplicas, or lower minReplicas
{{- end }}
{{- if lt (int $scale.maxReplicas) 1 }}
endpoint.autoscaling.maxReplicas={{ $scale.maxReplicas }} serves nothing: set at least 1, or endpoint.enabled=false
{{- end }}
{{- $offered := 0 }}
{{- range $endpoint.groups }}
{{- $group := include "awares.group" (dict "root" $ "group" .) | fromYaml }}
{{- if $group.enabled }}{{ $offered = add $offered (mul (int $group.gpus) (int $group.maxReplicas)) }}{{ end }}
{{- end }}
{{- $each := dig "serve" "replica_gpus" 0 .Values.setup }}
{{- if gt (mulf $scale.maxReplicas $each) (float64 $offered) }}
endpoint.autoscaling.maxReplicas={{ $scale.maxReplicas }} with setup.serve.replica_gpus={{ $each }} needs {{ mulf $scale.maxReplicas $each }} GPUs, endpoint.groups offer {{ $offered }}: raise a group's maxReplicas or gpus, or lower maxReplicas
{{- end }}
{{- include "awares.refuseUpgrade" $endpoint }}
{{- if and $endpoint.ingress.enabled (not $endpoint.ingress.host) }}
endpoint.ingress.enabled needs endpoint.ingress.host: name the host that clients ask
{{- end }}
{{- if and $endpoint.httpRoute.enabled (not $endpoint.httpRoute.parentRefs) }}
endpoint.httpRoute.enabled needs endpoint.httpRoute.parentRefs: name the Gateway that the route joins
{{- end }}
{{- end }}
{{- end }}

{{/* Input: endpoint. */}}
{{- define "awares.refuseUpgrade" }}
{{- if eq .upgrade "incremental" }}
{{- if not (and .autoscaler.enabled .gatewayClassName) }}
endpoint.upgrade=incremental needs endpoint.autoscaler.enabled=true and endpoint.gatewayClassName: set both, or endpoint.upgrade=none
{{- end }}
{{- if gt (int .incremental.stepSizePercent) (int .incremental.maxSurgePercent) }}
endpoint.incremental.stepSizePercent={{ .incremental.stepSizePercent }} exceeds maxSurgePercent={{ .incremental.maxSurgePercent }}: lower the first
{{- end }}
{{- end }}
{{- end }}
