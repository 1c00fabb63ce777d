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
{{- if and (contains "DeleteWorkers" (toJson $job.deletionRules))
    $root.Values.cluster.autoscaler.enabled }}
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
{{- include "awares.refuseOrder" (dict "path" $path "rules" $job.deletionRules) }}
{{- include "awares.refuseSchedule" (dict "path" $path "job" $job) }}
{{- if and $job.schedule (eq $job.cluster "own") (ne $root.Values.queue.kind "none") }}
{{ $path }}.schedule would bypass the queue of queue.kind={{ $root.Values.queue.kind }}, because
  KubeRay gives scheduled jobs no queue label: remove the schedule, or set queue.kind=none
{{- end }}
{{- if eq $job.cluster "shared" }}
{{- include "awares.refuseSharedJob" (dict "root" $root "path" $path "job" $job "given" .given) }}
{{- else }}
{{- range $job.groups }}
{{- if not (hasKey $root.Values.cluster.groups .) }}
{{ $path }}.groups names {{ . }}, which is not in cluster.groups: use one of
  {{ keys $root.Values.cluster.groups | sortAlpha | join ", " }}
{{- end }}
{{- end }}
{{- end }}
{{- include "awares.refuseSize" . }}
{{- if has .name (concat $job.before $job.after) }}
{{ $path }}.{{ has .name $job.before | ternary "before" "after" }} names the job itself: remove
  {{ .name }}
{{- end }}
{{- end }}

{{/* Refuse deletion rules that would delete the job before its cluster, or the cluster before its
workers. Input: path, rules. */}}
{{- define "awares.refuseOrder" }}
{{- $order := list "DeleteWorkers" "DeleteCluster" "DeleteSelf" }}
{{- range $index, $first := initial $order }}
{{- range $later := slice $order (add1 $index) }}
{{- range $rule := $.rules }}{{ range $other := $.rules }}
{{- $same := eq (omit $rule.condition "ttlSeconds" | toJson)
    (omit $other.condition "ttlSeconds" | toJson) }}
{{- $wait := get $rule.condition "ttlSeconds" | int64 }}
{{- $sooner := get $other.condition "ttlSeconds" | int64 }}
{{- if and $same (eq $rule.policy $first) (eq $other.policy $later) (lt $sooner $wait) }}
{{ $.path }}.deletionRules have {{ $later }} after {{ $sooner }} s, and {{ $first }} only after
  {{ $wait }} s: give {{ $later }} at least the ttlSeconds of {{ $first }}
{{- end }}
{{- end }}{{ end }}
{{- end }}
{{- end }}
{{- end }}

{{/* Refuse a schedule or a time zone that the operator cannot read. A time zone that Helm cannot
load becomes UTC. If Helm cannot even load Asia/Tokyo, the machine has no time zones, and the
template accepts every time zone. Input: path, job. */}}
{{- define "awares.refuseSchedule" }}
{{- $bounds := list (list 0 59 "minute" "") (list 0 23 "hour" "") (list 1 31 "day of the month" "")
    (list 1 12 "month" "|jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec")
    (list 0 6 "day of the week" "|sun|mon|tue|wed|thu|fri|sat") }}
{{- range $index, $field := contains " " .job.schedule | ternary (splitList " " .job.schedule)
    list }}
{{- $bound := index $bounds $index }}
{{- $name := printf "([0-9]{1,2}%s)" (index $bound 3) }}
{{- $wrong := false }}
{{- range $part := splitList "," (lower $field) }}
{{- if not (regexMatch (printf "^([*?]|%s(-%s)?)(/[1-9][0-9]*)?$" $name $name) $part) }}
{{- $wrong = true }}
{{- end }}
{{- $ends := regexFindAll "[0-9]+" (splitList "/" $part | first) -1 }}
{{- range $ends }}
{{- if or (lt (atoi .) (first $bound)) (gt (atoi .) (index $bound 1)) }}{{ $wrong = true }}{{ end }}
{{- end }}
{{- if and (eq (len $ends) 2) (gt (first $ends | atoi) (last $ends | atoi)) }}
{{- $wrong = true }}
{{- end }}
{{- end }}
{{- if $wrong }}
{{ $.path }}.schedule={{ $.job.schedule | quote }} has the {{ index $bound 2 }}
  {{ $field | quote }}: use *, or numbers from {{ first $bound }} to {{ index $bound 1 }} with lists
  (,), ranges (-) and steps (/)
{{- end }}
{{- end }}
{{- $zone := .job.timeZone }}
{{- $now := now }}
{{- $known := ne (dateInZone "MST" $now "Asia/Tokyo") "UTC" }}
{{- if and .job.schedule $known (eq (dateInZone "MST" $now $zone) "UTC")
    (not (regexMatch "^((Etc/)?(UTC|UCT|Universal|Zulu))$" $zone)) }}
{{ .path }}.timeZone={{ $zone | quote }} is no time zone: use a name such as Etc/UTC or
  Europe/Berlin
{{- end }}
{{- end }}

{{/* Refuse values that a job on the shared cluster cannot have. Input: root, path, given and job as
in awares.refuseJob. */}}
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
{{- if .job.deletionRules }}
{{ .path }}.deletionRules have no effect with {{ .path }}.cluster=shared: remove them, or set
  {{ .path }}.cluster=own
{{- end }}
{{- if eq .root.Values.queue.kind "volcano" }}
{{ .path }}.cluster=shared with queue.kind=volcano would wait for ever, because Volcano queues no
  job on an existing cluster: set {{ .path }}.cluster=own, or submit the job by ray job submit
{{- end }}
{{- end }}
