{{/* The spec of a RayCluster: the permanent cluster, a job's own cluster, or the endpoint's
cluster. In the inputs, root is the chart's root context ($). */}}

{{/* A group's values merged over groupDefaults, as YAML. Input: root, group. */}}
{{- define "awares.group" -}}
{{ include "awares.over" (dict "defaults" .root.Values.groupDefaults "given" .group) }}
{{- end }}

{{/* The entries of a map that are not null, as YAML. A user sets an entry of a preset to null to
remove it. */}}
{{- define "awares.present" -}}
{{- $kept := dict -}}
{{- range $key, $value := . -}}
{{- if not (kindIs "invalid" $value) }}{{ $_ := set $kept $key $value }}{{ end -}}
{{- end -}}
{{ toYaml $kept }}
{{- end }}

{{/* Values merged over defaults, as YAML. mergeOverwrite would ignore the values false, 0 and "".
Input: defaults, given. */}}
{{- define "awares.over" -}}
{{- $merged := deepCopy .defaults -}}
{{- range $key, $value := .given -}}
{{- if and (kindIs "map" $value) (kindIs "map" (get $merged $key)) -}}
{{- $value = include "awares.over" (dict "defaults" (get $merged $key) "given" $value) |
    fromYaml -}}
{{- end -}}
{{- $_ := set $merged $key $value -}}
{{- end -}}
{{ toYaml $merged }}
{{- end }}

{{/*
The spec of a RayCluster, without `suspend`. Callers add `suspend` only if it is true. A queue may
set this field itself, and an upgrade must not reset it. Input:
  root, component
  settings   .Values.cluster or .Values.endpoint
  groups     names of the worker groups to include; empty for all
  account    service account: runs or endpoint
  autoscaler whether the cluster has an autoscaler
  setup      whether the pods read setup.toml
  queued     whether a queue admits the cluster
  serve      whether the pods serve on port 8000
  env        additional environment variables, as YAML
  keys       name of the Secret with the endpoint's keys file, which only workers mount
  drain      seconds that a deleted pod needs at least, or nothing
  live       name of the RayCluster, if an upgrade may find it running
*/}}
{{- define "awares.clusterSpec" -}}
{{- $root := .root -}}
rayVersion: {{ $root.Values.rayVersion | quote }}
authOptions:
  mode: {{ $root.Values.auth.mode }}
  {{- if ne $root.Values.auth.mode "disabled" }}
  secretName: {{ $root.Values.auth.existingSecret | quote }}
  {{- end }}
enableInTreeAutoscaling: {{ .autoscaler }}
{{- if .autoscaler }}
autoscalerOptions:
  {{- include "awares.autoscaler" . | nindent 2 }}
{{- end }}
{{- if .settings.gcsFaultTolerance.enabled }}
gcsFaultToleranceOptions:
  {{- include "awares.faultTolerance" .settings.gcsFaultTolerance | nindent 2 }}
{{- end }}
headGroupSpec:
  rayStartParams:
    dashboard-host: "0.0.0.0"
    {{- with .settings.head.objectStoreMemory }}
    object-store-memory: {{ int64 . | quote }}
    {{- end }}
  resources: {CPU: "0", GPU: "0"}
  labels: {awares/group: head}
  template:
    {{- include "awares.rayPod" (merge (dict "role" "head" "group" .settings.head) .) | nindent 4 }}
workerGroupSpecs:
{{- range $name, $given := .settings.groups }}
{{- $group := include "awares.group" (dict "root" $root "group" $given) | fromYaml }}
{{- if and $group.enabled (or (not $.groups) (has $name $.groups)) }}
- {{ include "awares.workerGroup" (merge (dict "role" "worker" "name" $name "group" $group) $) |
    nindent 2 | trim }}
{{- end }}
{{- end }}
{{- end }}

{{/* The spec of a worker group. Input: the input of awares.clusterSpec, and also role (worker),
name and group. */}}
{{- define "awares.workerGroup" -}}
groupName: {{ .name }}
replicas: {{ include "awares.replicas" . }}
minReplicas: {{ int64 .group.minReplicas }}
maxReplicas: {{ int64 .group.maxReplicas }}
{{- if gt (int .group.numOfHosts) 1 }}
numOfHosts: {{ int64 .group.numOfHosts }}
{{- end }}
{{- if .autoscaler }}
{{- if not (kindIs "invalid" .group.idleTimeoutSeconds) }}
idleTimeoutSeconds: {{ int64 .group.idleTimeoutSeconds }}
{{- end }}
priority: {{ int64 .group.priority }}
{{- end }}
rayStartParams:
  metrics-export-port: "8080"
  {{- with .group.objectStoreMemory }}
  object-store-memory: {{ int64 . | quote }}
  {{- end }}
{{- $counted := deepCopy .group.customResources }}
{{- if not (kindIs "invalid" .group.numCpus) }}{{ $_ := set $counted "CPU"
    (.group.numCpus | toString) }}{{ end }}
{{- if not .group.gpus }}{{ $_ := set $counted "GPU" "0" }}{{ end }}
{{- with $counted }}
resources:
  {{- toYaml . | nindent 2 }}
{{- end }}
labels:
  {{- toYaml (merge (dict "awares/group" .name) .group.labels) | nindent 2 }}
template:
  {{- include "awares.rayPod" . | nindent 2 }}
{{- end }}

{{/* The number of workers of a group. If the cluster already runs with an autoscaler, keep the
number that the autoscaler has set, within minReplicas and maxReplicas. An upgrade must not remove
workers from a running job. Input: the input of awares.workerGroup. */}}
{{- define "awares.replicas" -}}
{{- $start := .autoscaler | ternary .group.minReplicas .group.maxReplicas -}}
{{- $replicas := kindIs "invalid" .group.replicas | ternary $start .group.replicas -}}
{{- if and .autoscaler .live -}}
{{- range dig "spec" "workerGroupSpecs" list (lookup "ray.io/v1" "RayCluster"
    .root.Release.Namespace .live) -}}
{{- if eq .groupName $.name -}}
{{- $replicas = min (max (int .replicas) (int $.group.minReplicas)) (int $.group.maxReplicas) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{ int $replicas }}
{{- end }}

{{/* The autoscaler's options. Version 2 of the autoscaler accepts only the restartPolicy Never, so
the pod templates of the cluster set no restartPolicy. */}}
{{- define "awares.autoscaler" -}}
version: v2
idleTimeoutSeconds: {{ int64 .settings.autoscaler.idleTimeoutSeconds }}
upscalingMode: {{ .settings.autoscaler.upscalingMode }}
resources:
  {{- toYaml .settings.autoscaler.resources | nindent 2 }}
securityContext:
  {{- include "awares.containerSecurity" .root | nindent 2 }}
volumeMounts:
- {name: tmp, mountPath: /tmp}
- {name: home, mountPath: /home/awares}
{{- end }}

{{- define "awares.faultTolerance" -}}
backend: redis
redisAddress: {{ .redisAddress | quote }}
{{- with .username }}
redisUsername: {value: {{ . | quote }}}
{{- end }}
{{- if .existingSecret }}
redisPassword:
  valueFrom:
    secretKeyRef: {name: {{ .existingSecret | quote }}, key: redis-password}
{{- end }}
{{- end }}
