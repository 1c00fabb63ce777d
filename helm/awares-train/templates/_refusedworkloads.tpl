{{/* Refuse groups and endpoints that KubeRay would refuse or that would never start. */}}

{{- define "awares.refuseGroups" }}
{{- if and .Values.modelCache.claim .Values.modelCache.hostPath }}
modelCache.claim and modelCache.hostPath name two places for the models: set one of them to ""
{{- end }}
{{- $own := false }}
{{- range .Values.jobs }}
{{- $job := include "awares.job" (dict "root" $ "job" .) | fromYaml }}
{{- if and $job.enabled (eq $job.cluster "own") }}{{ $own = true }}{{ end }}
{{- end }}
{{- range $part, $used := dict "cluster" (or .Values.cluster.enabled $own) "endpoint"
    .Values.endpoint.enabled }}
{{- $settings := get $.Values $part }}
{{- if $used }}
{{- include "awares.refuseSizes" (merge (dict "path" (printf "%s.head" $part)) $settings.head) }}
{{- range $name, $given := $settings.groups }}
{{- $group := include "awares.group" (dict "root" $ "group" $given) | fromYaml }}
{{- if $group.enabled }}
{{- include "awares.refuseGroup" (dict "path" (printf "%s.groups.%s" $part $name) "group" $group
    "target" $.Values.target) }}
{{- end }}
{{- end }}
{{- if not (include "awares.groupsOf" (dict "root" $ "groups" $settings.groups) | fromYaml) }}
{{ $part }}.groups are all disabled, and the head runs no tasks: enable a group, or set
  {{ $part }}.enabled=false
{{- end }}
{{- if and $settings.gcsFaultTolerance.enabled (not
    (regexMatch "^(rediss?://)?[^:/]+:[0-9]+$" $settings.gcsFaultTolerance.redisAddress)) }}
{{ $part }}.gcsFaultTolerance.redisAddress={{ $settings.gcsFaultTolerance.redisAddress | quote }} is
  not an address: set it to the host:port of a Redis server, or to
  rediss://host:port for TLS
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{/* Refuse wrong values of one group. Input: path, group, target. */}}
{{- define "awares.refuseGroup" }}
{{- $group := .group }}
{{- if and (gt (int $group.gpus) 0) (not .target)
    (not (include "awares.present" $group.nodeSelector | fromYaml)) }}
{{ .path }}.gpus={{ $group.gpus }} without {{ .path }}.nodeSelector: set target to the kind of your
  cluster (eks, gke, aks or onprem), or name the nodes by a label that their pool declares, so that
  a run never mixes accelerators
{{- end }}
{{- if gt (int $group.minReplicas) (int $group.maxReplicas) }}
{{ .path }}.minReplicas={{ $group.minReplicas }} exceeds maxReplicas={{ $group.maxReplicas }}: raise
  {{ .path }}.maxReplicas, or lower minReplicas
{{- end }}
{{- include "awares.refuseSizes" (merge (dict "path" .path) $group) }}
{{- $missing := list }}
{{- range $kind := list "requests" "limits" }}
{{- range $resource := list "cpu" "memory" }}
{{- if not (dig $kind $resource "" $group.resources) }}{{ $missing = append $missing
    (printf "%s.%s" $kind $resource) }}{{ end }}
{{- end }}
{{- end }}
{{- if $missing }}
{{ .path }}.resources has no {{ join ", " $missing }}: set them, because the scheduler places pods
  by them and Ray counts them
{{- end }}
{{- $replicas := int $group.replicas }}
{{- if and (not (kindIs "invalid" $group.replicas))
    (or (lt $replicas (int $group.minReplicas)) (gt $replicas (int $group.maxReplicas))) }}
{{ .path }}.replicas={{ $replicas }} is not between minReplicas={{ $group.minReplicas }} and
  maxReplicas={{ $group.maxReplicas }}: change one of the three
{{- end }}
{{- end }}

{{- define "awares.refuseEndpoint" }}
{{- $endpoint := .Values.endpoint }}
{{- if $endpoint.enabled }}
{{- $scale := $endpoint.autoscaling }}
{{- if gt (int $scale.minReplicas) (int $scale.maxReplicas) }}
endpoint.autoscaling.minReplicas={{ $scale.minReplicas }} exceeds
  maxReplicas={{ $scale.maxReplicas }}: raise endpoint.autoscaling.maxReplicas, or lower minReplicas
{{- end }}
{{- $groups := include "awares.groupsOf" (dict "root" . "groups" $endpoint.groups) | fromYaml }}
{{- $replica := dict "number" $scale.maxReplicas "cpus" "serve.replica_cpus" "gpus"
    "serve.replica_gpus" "engine" true }}
{{- $actor := include "awares.actor" (dict "root" . "need" $replica) | fromYaml }}
{{- include "awares.refuseRoom" (dict "path"
    (printf "endpoint.autoscaling.maxReplicas=%v" $scale.maxReplicas) "section" "serve" "groups"
    $groups "actors" (list $actor)) }}
{{- include "awares.refuseUpgrade" $endpoint }}
{{- if and $endpoint.ingress.enabled (not $endpoint.ingress.host) }}
endpoint.ingress.enabled needs endpoint.ingress.host: set it to the host name that clients use
{{- end }}
{{- if and $endpoint.httpRoute.enabled (not $endpoint.httpRoute.parentRefs) }}
endpoint.httpRoute.enabled needs endpoint.httpRoute.parentRefs: name the Gateway of the route
{{- end }}
{{- end }}
{{- end }}

{{/* Refuse an incremental upgrade that cannot work. Input: endpoint. */}}
{{- define "awares.refuseUpgrade" }}
{{- if eq .upgrade "incremental" }}
{{- if not (and .autoscaler.enabled .gatewayClassName) }}
endpoint.upgrade=incremental needs endpoint.autoscaler.enabled=true and endpoint.gatewayClassName:
  set both, or endpoint.upgrade=none
{{- end }}
{{- if gt (int .incremental.stepSizePercent) (int .incremental.maxSurgePercent) }}
endpoint.incremental.stepSizePercent={{ .incremental.stepSizePercent }} exceeds
  maxSurgePercent={{ .incremental.maxSurgePercent }}: lower stepSizePercent
{{- end }}
{{- if or .ingress.enabled .httpRoute.enabled }}
endpoint.upgrade=incremental moves the traffic of the Gateway that KubeRay creates, and
  endpoint.{{ .ingress.enabled | ternary "ingress" "httpRoute" }} would bypass it: disable it, and
  send clients to that Gateway
{{- end }}
{{- end }}
{{- end }}
