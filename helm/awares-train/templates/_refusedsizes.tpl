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
