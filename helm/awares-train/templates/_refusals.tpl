{{/*
What is refused before anything is installed: one sentence each, with the value and the remedy. All of them at once.
configmap.yaml includes it first. A sentence is a line; an indented line goes on with it.
*/}}

{{- define "awares.refuse" -}}
{{- $said := list -}}
{{- range list "Store" "Versions" "Secrets" "Accounts" "Pods" "Setup" "Groups" "Jobs" "Endpoint" "Queue" -}}
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
store.endpoint={{ .Values.store.endpoint }} and seaweedfs.enabled are two stores: leave one of them out
{{- end }}
{{- end }}

{{- define "awares.refuseVersions" }}
{{- if not (regexMatch "^v?1\\.7(\\..+)?$" .Values.kuberay.version) }}
kuberay.version={{ .Values.kuberay.version }} is not supported: this chart is written for KubeRay 1.7, so upgrade the operator and its
  CRDs to 1.7.0, or take the chart's release for your version
{{- end }}
{{- if not (regexMatch "^2\\.(5[6-9]|[6-9][0-9])\\.[0-9]+$" .Values.rayVersion) }}
rayVersion={{ .Values.rayVersion }} is not supported: name the version of Ray in the image, 2.56.0 or newer, such as 2.60.0
{{- end }}
{{- if and (include "awares.live" .) (not (.Capabilities.APIVersions.Has "ray.io/v1")) }}
this cluster does not know ray.io/v1: install the operator first, with helm install kuberay-operator kuberay/kuberay-operator --version
  {{ .Values.kuberay.version }}
{{- else if and (include "awares.live" .) (not (.Capabilities.APIVersions.Has "ray.io/v1/RayCronJob")) }}
this cluster's definitions are of a KubeRay before 1.6, for they have no RayCronJob: upgrade the operator to {{ .Values.kuberay.version }},
  and with kubectl apply --server-side its CRDs, which helm upgrade leaves as they are
{{- end }}
{{- end }}

{{/* The chart fills in where things are, so that a setup cannot point elsewhere. */}}
{{- define "awares.refuseSetup" }}
{{- $owners := dict "store.url" "store.bucket and store.prefix" "store.endpoint" "store.endpoint" "store.region" "store.region"
    "serve.host" "0.0.0.0" "serve.port" "8000, the port that Services and policies name" "serve.token_env" "endpoint.token"
    "serve.autoscaling" "endpoint.autoscaling" }}
{{- range $key, $owner := $owners }}
{{- $path := splitList "." $key }}
{{- $section := get $.Values.setup (first $path) | default dict }}
{{- if hasKey $section (last $path) }}
setup.{{ $key }}={{ get $section (last $path) | toJson }} would be replaced by {{ $owner }}: leave the key out
{{- end }}
{{- end }}
{{- end }}

{{- define "awares.refuseQueue" }}
{{- $queue := .Values.queue }}
{{- if ne $queue.kind "none" }}
{{- if not $queue.name }}
queue.kind={{ $queue.kind }} needs queue.name: name the queue that admits the release's clusters
{{- end }}
{{- if .Values.cluster.autoscaler.enabled }}
queue.kind={{ $queue.kind }} admits whole clusters, and cluster.autoscaler.enabled changes them afterwards: set
  cluster.autoscaler.enabled=false, and each group's maxReplicas to what a run needs
{{- end }}
{{- if and $queue.endpoint .Values.endpoint.enabled .Values.endpoint.autoscaler.enabled }}
queue.endpoint with queue.kind={{ $queue.kind }} admits whole clusters, and endpoint.autoscaler.enabled changes them afterwards: set one
  of them to false
{{- end }}
{{- end }}
{{- if and (ne $queue.topology.mode "none") (or (ne $queue.kind "kueue") (not $queue.topology.level)) }}
queue.topology.mode={{ $queue.topology.mode }} needs queue.kind=kueue and queue.topology.level, the node label whose value the pods of a
  group share
{{- end }}
{{- end }}
