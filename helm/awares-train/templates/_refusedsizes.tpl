{{/* What jobs and replicas take at once, against what their groups may have: what never fits would wait for ever. */}}

{{/* Groups that are enabled, over their defaults, as YAML. Input: root, groups, names (of those that count; empty for all). */}}
{{- define "awares.groupsOf" -}}
{{- $found := dict -}}
{{- range $name, $given := .groups -}}
{{- $group := include "awares.group" (dict "root" $.root "group" $given) | fromYaml -}}
{{- if and $group.enabled (or (not $.names) (has $name $.names)) }}{{ $_ := set $found $name $group }}{{ end -}}
{{- end -}}
{{ toYaml $found }}
{{- end }}

{{/* GPUs or CPUs of groups at their largest. Input: groups, kind. Without numCpus KubeRay counts the CPU limit, else the request. */}}
{{- define "awares.offered" -}}
{{- $sum := 0.0 -}}
{{- range .groups -}}
{{- $each := .gpus | float64 -}}
{{- if eq $.kind "CPU" -}}
{{- $said := dig "limits" "cpu" (dig "requests" "cpu" 0 .resources) .resources | toString -}}
{{- $cores := hasSuffix "m" $said | ternary (divf (trimSuffix "m" $said | float64) 1000.0) (float64 $said) -}}
{{- $each = kindIs "invalid" .numCpus | ternary (ceil $cores) (.numCpus | float64) -}}
{{- end -}}
{{- $sum = addf $sum (mulf .maxReplicas $each) -}}
{{- end -}}
{{ $sum }}
{{- end }}

{{/* What a job takes at once, as YAML: GPU and CPU by job. Input: setup. Defaults are the configuration's. */}}
{{- define "awares.taken" -}}
{{- range $kind := list "gpus" "cpus" }}
{{- $one := eq $kind "cpus" | ternary 1 0 }}{{ $half := eq $kind "cpus" | ternary 0.5 0 }}
{{ $kind }}:
  grpo: {{ addf (mulf (dig "grpo" "rollout_actors" 1 $) (dig "grpo" (printf "rollout_%s" $kind) $one $))
    (mulf (dig "grpo" "learner_workers" 1 $) (dig "grpo" (printf "learner_%s" $kind) $one $)) }}
  evaluate: {{ dig "evaluate" (printf "engine_%s" $kind) $half $ }}
  curate: {{ mulf (dig "curate" "engines" 1 $) (dig "curate" (printf "engine_%s" $kind) $half $) }}
  {{- $rank := eq $kind "cpus" | ternary (dig "sft" "threads" 1 $) (dig "sft" "use_gpu" false $ | ternary 1 0) }}
  sft: {{ mulf (dig "sft" "workers" 1 $) $rank }}
{{- end }}
{{- end }}

{{/* Input: root, path, name, job. */}}
{{- define "awares.refuseSize" }}
{{- $taken := include "awares.taken" .root.Values.setup | fromYaml }}
{{- $names := eq .job.cluster "shared" | ternary list .job.groups }}
{{- $groups := include "awares.groupsOf" (dict "root" .root "groups" .root.Values.cluster.groups "names" $names) | fromYaml }}
{{- range $kind := list "GPU" "CPU" }}
{{- $offered := include "awares.offered" (dict "groups" $groups "kind" $kind) | float64 }}
{{- range append $.job.before $.name }}
{{- $needed := dig (printf "%ss" (lower $kind)) . 0 $taken }}
{{- if gt (float64 $needed) $offered }}
{{ $.path }} needs {{ $needed }} {{ $kind }}s at once for setup.{{ . }}, its groups offer {{ $offered }}: raise a group's maxReplicas or
  {{ eq $kind "GPU" | ternary "gpus" "numCpus" }}, or take fewer in setup.{{ . }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{/* A Kubernetes quantity as a number. */}}
{{- define "awares.amount" -}}
{{- $units := dict "m" 0.001 "k" 1e3 "M" 1e6 "G" 1e9 "T" 1e12 "P" 1e15 "Ki" 1024.0 "Mi" 1048576.0 "Gi" 1073741824.0 "Ti" 1099511627776.0
    "Pi" 1125899906842624.0 -}}
{{- $text := toString . -}}
{{- $unit := regexFind "[A-Za-z]+$" $text -}}
{{- printf "%.3f" (mulf (trimSuffix $unit $text | float64) (get $units $unit | default 1.0)) -}}
{{- end }}

{{/* Requests above limits, and memory-backed volumes above what holds them. Input: path, and of a group or head: resources, shm,
objectStoreMemory. */}}
{{- define "awares.refuseSizes" }}
{{- $limits := .resources.limits | default dict }}
{{- range $resource, $request := .resources.requests | default dict }}
{{- $limit := get $limits $resource | default $request }}
{{- if gt (include "awares.amount" $request | float64) (include "awares.amount" $limit | float64) }}
{{ $.path }}.resources.requests.{{ $resource }}={{ $request }} exceeds its limit of {{ $limit }}: raise the limit, or lower the request
{{- end }}
{{- end }}
{{- if .shm }}
{{- $shm := include "awares.amount" .shm | float64 }}
{{- if ge $shm (include "awares.amount" ($limits.memory | default "1Pi") | float64) }}
{{ .path }}.shm={{ .shm }} leaves nothing of the memory limit of {{ $limits.memory }}, which it counts against: raise the
  limit, or lower shm
{{- end }}
{{- if gt (.objectStoreMemory | default 0 | float64) $shm }}
{{ .path }}.objectStoreMemory={{ int64 .objectStoreMemory }} exceeds {{ .path }}.shm={{ .shm }}, and Ray would not start: raise shm, or
  lower objectStoreMemory
{{- end }}
{{- end }}
{{- end }}
