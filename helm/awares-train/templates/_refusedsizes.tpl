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

{{/* The number of GPUs or CPUs that Ray counts in one worker of a group. If numCpus is null,
KubeRay counts the CPU limit, or the CPU request if there is no limit. Input: group, kind (GPU or
CPU). */}}
{{- define "awares.each" -}}
{{- if eq .kind "GPU" -}}
{{ .group.gpus }}
{{- else if kindIs "invalid" .group.numCpus -}}
{{- $resources := .group.resources -}}
{{ dig "limits" "cpu" (dig "requests" "cpu" 0 $resources) $resources | include "awares.amount" |
    float64 | ceil }}
{{- else -}}
{{ .group.numCpus }}
{{- end -}}
{{- end }}

{{/* The number of GPUs or CPUs that groups offer with maxReplicas times numOfHosts pods each.
Input: groups, kind (GPU or CPU). */}}
{{- define "awares.offered" -}}
{{- $sum := 0.0 -}}
{{- range .groups -}}
{{- $each := include "awares.each" (dict "group" . "kind" $.kind) -}}
{{- $sum = addf $sum (mulf .maxReplicas .numOfHosts $each) -}}
{{- end -}}
{{ $sum }}
{{- end }}

{{/* The groups whose labels match a selector of Ray, as YAML. Conditions on Ray's own labels, and
conditions with an operator, match every group here, because only a running node can answer them.
Input: groups, selector. */}}
{{- define "awares.eligible" -}}
{{- $found := dict -}}
{{- range $name, $group := .groups -}}
{{- $labels := merge (dict "awares/group" $name) $group.labels -}}
{{- $matches := true -}}
{{- range $key, $value := $.selector -}}
{{- if not (or (hasPrefix "ray.io/" $key) (regexMatch "[!(]" $value)
    (eq (get $labels $key | toString) $value)) }}{{ $matches = false }}{{ end -}}
{{- end -}}
{{- if $matches }}{{ $_ := set $found $name $group }}{{ end -}}
{{- end -}}
{{ toYaml $found }}
{{- end }}

{{/* The number of actors that groups hold with maxReplicas times numOfHosts pods each. A whole
actor runs on one pod. Input: groups, and cpus and gpus of one actor. */}}
{{- define "awares.room" -}}
{{- $sum := 0.0 -}}
{{- range $group := .groups -}}
{{- $fit := 1e9 -}}
{{- range $kind, $each := dict "CPU" $.cpus "GPU" $.gpus -}}
{{- if gt (float64 $each) 0.0 -}}
{{- $have := include "awares.each" (dict "group" $group "kind" $kind) | float64 -}}
{{- $fit = minf $fit (floor (addf (divf $have $each) 1e-6)) -}}
{{- end -}}
{{- end -}}
{{- $sum = addf $sum (mulf $group.maxReplicas $group.numOfHosts $fit) -}}
{{- end -}}
{{ $sum }}
{{- end }}

{{/* The actors that each job runs at the same time, as YAML. The keys cpus and gpus name the
settings of one actor. Input: the root. */}}
{{- define "awares.needs" -}}
{{- $learner := dict "number" "grpo.learner_workers" "cpus" "grpo.learner_cpus" "gpus"
    "grpo.learner_gpus" "selector" "grpo.learner_selector" -}}
{{- $rollout := dict "number" "grpo.rollout_actors" "cpus" "grpo.rollout_cpus" "gpus"
    "grpo.rollout_gpus" "selector" "grpo.rollout_selector" "engine" true -}}
{{- $reward := dict "number" "grpo.reward_workers" "cpus" "grpo.reward_cpus" -}}
{{- $gpu := eq (include "awares.setting" (list . "sft" "use_gpu")) "true" | ternary 1 0 -}}
grpo: {{ toJson (list $learner $rollout $reward) }}
doctor: {{ toJson (list $learner (merge (dict "number" 1) $rollout)) }}
curate:
- {number: curate.engines, cpus: curate.engine_cpus, gpus: curate.engine_gpus, engine: true}
evaluate: [{number: 1, cpus: evaluate.engine_cpus, gpus: evaluate.engine_gpus, engine: true}]
sft: [{number: sft.workers, cpus: sft.threads, gpus: {{ $gpu }}, selector: sft.selector}]
{{- end }}

{{/* The value of a setting such as grpo.rollout_gpus. A number stands for itself, and an absent
setting for 0. Input: a list of root and setting. */}}
{{- define "awares.number" -}}
{{- $path := last . | default 0 | toString | splitList "." -}}
{{- if eq (len $path) 2 -}}
{{ include "awares.setting" (concat (list (first .)) $path) }}
{{- else -}}
{{ first $path }}
{{- end -}}
{{- end }}

{{/* Refuse a job that its groups cannot hold. Input: root, path, name, job. */}}
{{- define "awares.refuseSize" }}
{{- $needs := include "awares.needs" .root | fromYaml }}
{{- $names := eq .job.cluster "shared" | ternary list .job.groups }}
{{- $groups := include "awares.groupsOf" (dict "root" .root "groups" .root.Values.cluster.groups
    "names" $names) | fromYaml }}
{{- range concat $.job.before (list $.name) (get $.job "after" | default list) }}
{{- $actors := list }}
{{- range get $needs . }}
{{- $actors = append $actors (include "awares.actor" (dict "root" $.root "need" .) | fromYaml) }}
{{- end }}
{{- include "awares.refuseRoom" (dict "path" $.path "section" (eq . "doctor" | ternary "grpo" .)
    "groups" $groups "actors" $actors) }}
{{- end }}
{{- end }}

{{/* One kind of actor as YAML: number, cpus, gpus, selector, and the names of these settings.
Input: root, need (an entry of awares.needs). */}}
{{- define "awares.actor" -}}
{{- $root := .root -}}
{{- $numbers := dict "names" .need "selector" dict -}}
{{- range $key := list "number" "cpus" "gpus" -}}
{{- $_ := set $numbers $key (include "awares.number" (list $root (get $.need $key)) | float64) -}}
{{- end -}}
{{- with get .need "selector" -}}
{{- $path := splitList "." . -}}
{{- $_ := set $numbers "selector" (dig (first $path) (last $path) dict $root.Values.setup) -}}
{{- end -}}
{{- if get .need "engine" -}}
{{- $parallel := include "awares.setting" (list $root "engine" "tensor_parallel") -}}
{{- $_ := set $numbers "parallel" (float64 $parallel) -}}
{{- end -}}
{{ toYaml $numbers }}
{{- end }}

{{/* Refuse actors if the groups cannot hold all of them at once, or cannot hold one kind of them.
Input: path, section (of the setup), groups, actors. */}}
{{- define "awares.refuseRoom" }}
{{- $usable := dict }}
{{- $needed := dict "GPU" 0.0 "CPU" 0.0 }}
{{- $room := true }}
{{- range .actors }}
{{- $usable = merge $usable (include "awares.eligible" (dict "groups" $.groups "selector"
    .selector) | fromYaml) }}
{{- $_ := set $needed "GPU" (addf $needed.GPU (mulf .number .gpus)) }}
{{- $_ := set $needed "CPU" (addf $needed.CPU (mulf .number .cpus)) }}
{{- end }}
{{- range $kind := list "GPU" "CPU" }}
{{- $offered := include "awares.offered" (dict "groups" $usable "kind" $kind) | float64 }}
{{- if and $usable (gt (get $needed $kind) $offered) }}
{{- $room = false }}
{{ $.path }} needs {{ get $needed $kind }} {{ $kind }}s at once for setup.{{ $.section }}, but its
  groups offer {{ $offered }}: raise a group's maxReplicas or
  {{ eq $kind "GPU" | ternary "gpus" "numCpus" }}, or lower the number in setup.{{ $.section }}
{{- end }}
{{- end }}
{{- range .actors }}
{{- if and $room (gt .number 0.0) }}
{{- include "awares.refuseActor" (dict "path" $.path "groups" $.groups "actor" .) }}
{{- end }}
{{- end }}
{{- end }}

{{/* Refuse one kind of actor that no group may run, or for which a worker is too small. Input:
path, groups, actor. */}}
{{- define "awares.refuseActor" }}
{{- $actor := .actor }}
{{- $names := $actor.names }}
{{- $groups := include "awares.eligible" (dict "groups" .groups "selector" $actor.selector) |
    fromYaml }}
{{- $room := include "awares.room" (dict "groups" $groups "cpus" $actor.cpus "gpus" $actor.gpus) |
    float64 }}
{{- $have := keys $groups | sortAlpha | join ", " }}
{{- $parallel := get $actor "parallel" | default 1.0 }}
{{- $size := get $names "gpus" | toString | contains "." | ternary $names.gpus $names.cpus }}
{{- if not $groups }}
{{ .path }}: none of its groups ({{ keys .groups | sortAlpha | join ", " }}) has the labels of
  setup.{{ $names.selector }}={{ toJson $actor.selector }}: add the labels to a group, or change the
  selector
{{- else if lt $room $actor.number }}
{{ .path }} needs {{ $actor.gpus }} GPUs and {{ $actor.cpus }} CPUs on one worker for each of
  {{ $actor.number }} actors (setup.{{ $size }}), but {{ $have }} can hold {{ $room }} of them:
  raise the gpus, numCpus or maxReplicas of {{ $have }}, or lower setup.{{ $size }}
{{- end }}
{{- if and (gt $actor.gpus 0.0) (gt $parallel 1.0) (lt $actor.gpus $parallel) }}
{{ .path }}: setup.engine.tensor_parallel={{ $parallel }} needs as many GPUs in each engine, but
  setup.{{ $names.gpus }}={{ $actor.gpus }}: raise setup.{{ $names.gpus }} to {{ $parallel }}, or
  set setup.engine.tensor_parallel=1
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
