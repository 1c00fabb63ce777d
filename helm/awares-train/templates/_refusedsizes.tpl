{{/* Refuse jobs that need more GPUs or CPUs than their groups offer, because they would wait for
ever. Also refuse sizes that contradict each other, such as a request above its limit. */}}

{{/* The enabled groups, merged over groupDefaults, as YAML. Input: root, groups, names (of the
groups to include; empty for all). */}}
{{- define "awares.groupsOf" -}}
{{- $found := dict -}}
{{- range $name, $given := .groups -}}
{{- $group := include "awares.group" (dict "root" $.root "group" $given) | fromYaml -}}
{{- if and $group.enabled (or (not $.names) (has $name $.names)) }}{{ $_ := set $found $name
    $group }}{{ end -}}
{{- end -}}
{{ toYaml $found }}
{{- end }}

{{/* The number of GPUs or CPUs that groups offer with maxReplicas workers each. If numCpus is null,
KubeRay counts the CPU limit, or the CPU request if there is no limit. Input: groups, kind (GPU or
CPU). */}}
{{- define "awares.offered" -}}
{{- $sum := 0.0 -}}
{{- range .groups -}}
{{- $each := .gpus | float64 -}}
{{- if eq $.kind "CPU" -}}
{{- $said := dig "limits" "cpu" (dig "requests" "cpu" 0 .resources) .resources | toString -}}
{{- $cores := hasSuffix "m" $said | ternary (divf (trimSuffix "m" $said | float64) 1000.0)
    (float64 $said) -}}
{{- $each = kindIs "invalid" .numCpus | ternary (ceil $cores) (.numCpus | float64) -}}
{{- end -}}
{{- $sum = addf $sum (mulf .maxReplicas $each) -}}
{{- end -}}
{{ $sum }}
{{- end }}

{{/* The number of GPUs and of CPUs that each job needs at the same time, as YAML. Input: the root.
*/}}
{{- define "awares.taken" -}}
{{- range $kind := list "gpus" "cpus" }}
{{ $kind }}:
  grpo: {{ addf
    (mulf (include "awares.setting" (list $ "grpo" "rollout_actors"))
      (include "awares.setting" (list $ "grpo" (printf "rollout_%s" $kind))))
    (mulf (include "awares.setting" (list $ "grpo" "learner_workers"))
      (include "awares.setting" (list $ "grpo" (printf "learner_%s" $kind)))) }}
  doctor: {{ addf (include "awares.setting" (list $ "grpo" (printf "rollout_%s" $kind)))
    (mulf (include "awares.setting" (list $ "grpo" "learner_workers"))
      (include "awares.setting" (list $ "grpo" (printf "learner_%s" $kind)))) }}
  evaluate: {{ include "awares.setting" (list $ "evaluate" (printf "engine_%s" $kind)) }}
  curate: {{ mulf (include "awares.setting" (list $ "curate" "engines"))
    (include "awares.setting" (list $ "curate" (printf "engine_%s" $kind))) }}
  {{- $threads := include "awares.setting" (list $ "sft" "threads") }}
  {{- $gpus := eq (include "awares.setting" (list $ "sft" "use_gpu")) "true" | ternary 1 0 }}
  sft: {{ mulf (include "awares.setting" (list $ "sft" "workers"))
    (eq $kind "cpus" | ternary $threads $gpus) }}
{{- end }}
{{- end }}

{{/* Refuse a job that needs more GPUs or CPUs than its groups offer. Input: root, path, name, job.
*/}}
{{- define "awares.refuseSize" }}
{{- $taken := include "awares.taken" .root | fromYaml }}
{{- $names := eq .job.cluster "shared" | ternary list .job.groups }}
{{- $groups := include "awares.groupsOf" (dict "root" .root "groups" .root.Values.cluster.groups
    "names" $names) | fromYaml }}
{{- range $kind := list "GPU" "CPU" }}
{{- $offered := include "awares.offered" (dict "groups" $groups "kind" $kind) | float64 }}
{{- range append $.job.before $.name }}
{{- $needed := dig (printf "%ss" (lower $kind)) . 0 $taken }}
{{- if gt (float64 $needed) $offered }}
{{- $section := eq . "doctor" | ternary "grpo" . }}
{{ $.path }} needs {{ $needed }} {{ $kind }}s at once for setup.{{ $section }}, but its groups offer
  {{ $offered }}: raise a group's maxReplicas or {{ eq $kind "GPU" | ternary "gpus" "numCpus" }}, or
  lower the number in setup.{{ $section }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{/* A Kubernetes quantity, such as 500m or 16Gi, as a number. */}}
{{- define "awares.amount" -}}
{{- $units := dict "m" 0.001 "k" 1e3 "M" 1e6 "G" 1e9 "T" 1e12 "P" 1e15 "Ki" 1024.0 "Mi" 1048576.0
    "Gi" 1073741824.0 "Ti" 1099511627776.0
    "Pi" 1125899906842624.0 -}}
{{- $text := toString . -}}
{{- $unit := regexFind "[A-Za-z]+$" $text -}}
{{- printf "%.3f" (mulf (trimSuffix $unit $text | float64) (get $units $unit | default 1.0)) -}}
{{- end }}

{{/* Refuse a request above its limit, a /dev/shm that uses up the memory limit, and an object store
larger than /dev/shm. Input: path, and resources, shm and objectStoreMemory of a group or head. */}}
{{- define "awares.refuseSizes" }}
{{- $limits := .resources.limits | default dict }}
{{- range $resource, $request := .resources.requests | default dict }}
{{- $limit := get $limits $resource | default $request }}
{{- if gt (include "awares.amount" $request | float64) (include "awares.amount" $limit | float64) }}
{{ $.path }}.resources.requests.{{ $resource }}={{ $request }} exceeds its limit of {{ $limit }}:
  raise the limit, or lower the request
{{- end }}
{{- end }}
{{- if .shm }}
{{- $shm := include "awares.amount" .shm | float64 }}
{{- if ge $shm (include "awares.amount" ($limits.memory | default "1Pi") | float64) }}
{{ .path }}.shm={{ .shm }} uses up the memory limit of {{ $limits.memory }}, because it counts
  against it: raise the limit, or lower shm
{{- end }}
{{- if gt (.objectStoreMemory | default 0 | float64) $shm }}
{{ .path }}.objectStoreMemory={{ int64 .objectStoreMemory }} exceeds {{ .path }}.shm={{ .shm }}, so
  Ray would not start: raise shm, or lower objectStoreMemory
{{- end }}
{{- end }}
{{- end }}
