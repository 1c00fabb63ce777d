{{/* The pod template of a head or worker. Input: the input of awares.clusterSpec, and also role
(head or worker), group, and for a worker name (of the group). */}}

{{- define "awares.rayPod" -}}
{{- $root := .root -}}
{{- $keys := eq .role "worker" | ternary (get . "keys") "" -}}
{{- $drain := max (int (get .group "drainSeconds" | default 30)) (int (get . "drain")) -}}
{{- $stay := dict "cluster-autoscaler.kubernetes.io/safe-to-evict" "false" -}}
{{- /* With this annotation, Karpenter does not delete a pod when the cloud takes its node back. The
pod would then not learn of it. */}}
{{- if not (dig "spot" "enabled" false .group) }}
{{- $_ := set $stay "karpenter.sh/do-not-disrupt" "true" }}
{{- end }}
metadata:
  labels:
    {{- include "awares.podLabels" . | nindent 4 }}
    {{- with merge (deepCopy $root.Values.pods.labels) $root.Values.commonLabels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  annotations:
    {{- $given := get .group "annotations" | default dict }}
    {{- toYaml (merge (deepCopy $given) $root.Values.pods.annotations $stay) | nindent 4 }}
    {{- with include "awares.queuePodAnnotations" . | trim }}{{ . | nindent 4 }}{{ end }}
spec:
  serviceAccountName: {{ include "awares.serviceAccount" (dict "root" $root "who" .account) |
      quote }}
  {{- /* A group's values replace the values of `pods`. */}}
  {{- $pods := deepCopy $root.Values.pods }}
  {{- range $key := list "affinity" "runtimeClassName" "schedulerName" }}
  {{- with get $.group $key }}{{ $_ := set $pods $key . }}{{ end }}
  {{- end }}
  {{- $plain := dict "Values" (set (omit $root.Values "pods") "pods" $pods) }}
  {{- if and (eq .role "head") .autoscaler }}
  {{- include "awares.plainPod" $plain | replace "automountServiceAccountToken: false"
      "automountServiceAccountToken: true" | nindent 2 }}
  {{- else }}
  {{- include "awares.plainPod" $plain | nindent 2 }}
  {{- end }}
  terminationGracePeriodSeconds: {{ add $drain 60 }}
  {{- if get .group "hostNetwork" }}
  hostNetwork: true
  dnsPolicy: ClusterFirstWithHostNet
  {{- end }}
  {{- with get .group "priorityClassName" | default .settings.priorityClassName | default
      (include "awares.queuePodPriority" .) }}
  priorityClassName: {{ . | quote }}
  {{- end }}
  {{- $pool := get .group "pool" }}
  {{- if eq .role "worker" }}{{ $pool = include "awares.pool" . }}{{ end }}
  {{- with include "awares.placement" (dict "root" $root "pool" $pool "settings" .group) | trim }}
  {{- . | nindent 2 }}
  {{- end }}
  {{- with get .group "topologySpread" }}
  topologySpreadConstraints:
    - maxSkew: 1
      topologyKey: {{ . | quote }}
      whenUnsatisfiable: ScheduleAnyway
      labelSelector:
        matchLabels:
          {{- include "awares.podLabels" $ | nindent 10 }}
          ray.io/group: {{ $.name }}
  {{- end }}
  {{- with include "awares.initContainers" $root | trim }}{{ . | nindent 2 }}{{ end }}
  containers:
    - name: ray-{{ .role }}
      {{- $container := include "awares.plainContainer" $root }}
      {{- if get .group "lockMemory" }}
      {{- /* RDMA pins memory, which needs the capability IPC_LOCK. */}}
      {{- $container = $container | replace "drop: [ALL]" "drop: [ALL]\n    add: [IPC_LOCK]" }}
      {{- end }}
      {{- with get .group "securityContext" }}
      {{- $fields := $container | fromYaml }}
      {{- $_ := set $fields "securityContext" (include "awares.over" (dict "defaults"
          $fields.securityContext "given" .) | fromYaml) }}
      {{- $container = toYaml $fields }}
      {{- end }}
      {{- $container | nindent 6 }}
      ports:
        {{- include "awares.rayPorts" . | nindent 8 }}
      env:
        {{- include "awares.env" $root | nindent 8 }}
        {{- with include "awares.cacheEnv" $root | trim }}{{ . | nindent 8 }}{{ end }}
        {{- if not (get .group "gpus") }}
        {{- include "awares.noGpuEnv" . | nindent 8 }}
        {{- end }}
        {{- if eq .role "worker" }}
        - {name: RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S, value: {{ $drain | quote }}}
        {{- end }}
        {{- with .env }}{{ . | trim | nindent 8 }}{{ end }}
        {{- with concat $root.Values.pods.env (get .group "env" | default list) }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      resources:
        {{- include "awares.rayResources" .group | trim | nindent 8 }}
      volumeMounts:
        {{- include "awares.mounts" (dict "root" $root "shm" .group.shm "setup" .setup "keys"
            $keys "cache" true) | nindent 8 }}
  volumes:
    {{- include "awares.volumes" (dict "root" $root "shm" .group.shm "setup" .setup "keys"
        $keys "cache" true) | nindent 4 }}
{{- end }}

{{/* The ports of a Ray container. KubeRay and the PodMonitors find the ports by these names. Input:
role, serve. */}}
{{- define "awares.rayPorts" -}}
- {name: metrics, containerPort: 8080}
{{- if .serve }}
- {name: serve, containerPort: 8000}
{{- end }}
{{- if eq .role "head" }}
- {name: gcs-server, containerPort: 6379}
- {name: dashboard, containerPort: 8265}
- {name: client, containerPort: 10001}
- {name: as-metrics, containerPort: 44217}
- {name: dash-metrics, containerPort: 44227}
{{- end }}
{{- end }}

{{/* A group's requests and limits, with its GPUs added. Input: a group. */}}
{{- define "awares.rayResources" -}}
{{- $gpus := int (get . "gpus" | default 0) -}}
{{- range $kind := list "requests" "limits" }}
{{- $given := deepCopy (get $.resources $kind | default dict) }}
{{- if $gpus }}{{ $_ := set $given $.gpuResource ($gpus | toString) }}{{ end }}
{{ $kind }}:
  {{- toYaml $given | nindent 2 }}
{{- end }}
{{- end }}
