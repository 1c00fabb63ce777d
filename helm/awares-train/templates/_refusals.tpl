{{/*
Refuse wrong values before anything is installed. Each message names the value and the remedy, and
helm prints all messages at once. configmap.yaml includes awares.refuse. In the templates below, a
message starts on an unindented line, and indented lines continue it.
*/}}

{{- define "awares.refuse" -}}
{{- $said := list -}}
{{- range list "Store" "Versions" "Secrets" "Accounts" "Pods" "Setup" "Groups" "Jobs" "Endpoint"
    "Queue" -}}
{{- range regexReplaceAll "\n +" (include (printf "awares.refuse%s" .) $) " " | splitList "\n" -}}
{{- with trim . }}{{ $said = append $said . }}{{ end -}}
{{- end -}}
{{- end -}}
{{- with $said -}}
{{- fail (printf "\n\n%s\n" (join "\n" .)) -}}
{{- end -}}
{{- end }}

{{- define "awares.refuseStore" }}
{{- if not .Values.store.bucket }}
store.bucket is empty: name the bucket that holds all state, such as --set store.bucket=my-bucket
{{- end }}
{{- if and .Values.seaweedfs.enabled .Values.store.endpoint }}
store.endpoint={{ .Values.store.endpoint }} and seaweedfs.enabled=true name two stores: remove one
  of them
{{- end }}
{{- end }}

{{- define "awares.refuseVersions" }}
{{- if not (regexMatch "^v?1\\.7(\\..+)?$" .Values.kuberay.version) }}
kuberay.version={{ .Values.kuberay.version }} is not supported, because this chart needs KubeRay
  1.7: upgrade the operator and its CRDs to 1.7.0, or use the chart's release for your version
{{- end }}
{{- if not (regexMatch "^2\\.(5[6-9]|[6-9][0-9])\\.[0-9]+$" .Values.rayVersion) }}
rayVersion={{ .Values.rayVersion }} is not supported: use an image with Ray 2.56.0 or newer, and
  name that version here
{{- end }}
{{- if and (include "awares.live" .) (not (.Capabilities.APIVersions.Has "ray.io/v1")) }}
this cluster has no API ray.io/v1: install the operator first, with helm install kuberay-operator
  kuberay/kuberay-operator --version {{ .Values.kuberay.version }}
{{- else if and (include "awares.live" .) (not (.Capabilities.APIVersions.Has
    "ray.io/v1/RayCronJob")) }}
this cluster's CRDs are of a KubeRay before 1.6, because they have no RayCronJob: upgrade the
  operator to {{ .Values.kuberay.version }}, and apply its CRDs with kubectl apply --server-side,
  because helm upgrade does not change CRDs
{{- end }}
{{- end }}

{{/* Refuse the keys of setup that the chart sets itself. */}}
{{- define "awares.refuseSetup" }}
{{- $owners := dict "store.url" "store.bucket and store.prefix" "store.endpoint" "store.endpoint"
    "store.region" "store.region"
    "serve.host" "0.0.0.0" "serve.port" "8000, the port that Services and policies name"
        "serve.token_env" "endpoint.token" "serve.keys_file" "endpoint.keys"
    "serve.autoscaling" "endpoint.autoscaling" }}
{{- range $key, $owner := $owners }}
{{- $path := splitList "." $key }}
{{- $section := get $.Values.setup (first $path) | default dict }}
{{- if hasKey $section (last $path) }}
setup.{{ $key }}={{ get $section (last $path) | toJson }} would be replaced by {{ $owner }}: remove
  the key
{{- end }}
{{- end }}
{{- end }}

{{- define "awares.refuseQueue" }}
{{- $queue := .Values.queue }}
{{- if ne $queue.kind "none" }}
{{- if not $queue.name }}
queue.kind={{ $queue.kind }} needs queue.name: set it to the queue that admits the release's
  clusters
{{- end }}
{{- if .Values.cluster.autoscaler.enabled }}
queue.kind={{ $queue.kind }} admits whole clusters, and cluster.autoscaler.enabled changes them
  afterwards: set cluster.autoscaler.enabled=false, and set each group's maxReplicas to the workers
  that a run needs
{{- end }}
{{- if and $queue.endpoint .Values.endpoint.enabled .Values.endpoint.autoscaler.enabled }}
queue.endpoint with queue.kind={{ $queue.kind }} admits whole clusters, and
  endpoint.autoscaler.enabled changes them afterwards: set one of them to false
{{- end }}
{{- end }}
{{- if and (ne $queue.topology.mode "none") (or (ne $queue.kind "kueue")
    (not $queue.topology.level)) }}
queue.topology.mode={{ $queue.topology.mode }} needs queue.kind=kueue and queue.topology.level: set
  both, or queue.topology.mode=none. The level is the node label whose value all pods of a group
  share
{{- end }}
{{- end }}
