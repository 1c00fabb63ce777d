{{/* Labels and annotations that assign objects to a queue of Kueue, Volcano or YuniKorn. In the
inputs, root is the chart's root context ($). */}}

{{/* The queue labels of a RayCluster, RayJob or RayService. Input: root, name (of the object). */}}
{{- define "awares.queueLabels" -}}
{{- $queue := .root.Values.queue -}}
{{- if eq $queue.kind "kueue" }}
kueue.x-k8s.io/queue-name: {{ $queue.name | quote }}
{{- with $queue.priorityClass }}
kueue.x-k8s.io/priority-class: {{ . }}
{{- end }}
{{- else if eq $queue.kind "volcano" }}
volcano.sh/queue-name: {{ $queue.name | quote }}
ray.io/gang-scheduling-enabled: "true"
{{- with $queue.priorityClass }}
ray.io/priority-class-name: {{ . }}
{{- end }}
{{- else if eq $queue.kind "yunikorn" }}
yunikorn.apache.org/app-id: {{ printf "%s-%s" .root.Release.Namespace .name | trunc 63 | trimSuffix
    "-" }}
yunikorn.apache.org/queue: {{ $queue.name }}
ray.io/gang-scheduling-enabled: "true"
{{- end }}
{{- end }}

{{/* The pod annotations for Kueue's topology-aware scheduling. Input: the input of awares.rayPod.
*/}}
{{- define "awares.queuePodAnnotations" -}}
{{- $topology := .root.Values.queue.topology -}}
{{- if and (eq .root.Values.queue.kind "kueue") .queued (eq .role "worker")
    (ne $topology.mode "none") }}
kueue.x-k8s.io/podset-{{ $topology.mode }}-topology: {{ $topology.level }}
{{- end }}
{{- end }}

{{/* The value queue.priorityClass for a YuniKorn queue, and empty for other queues. YuniKorn has no
priority classes of its own, so the pods get the class. Input: the input of awares.rayPod. */}}
{{- define "awares.queuePodPriority" -}}
{{- if and .queued (eq .root.Values.queue.kind "yunikorn") -}}
{{ .root.Values.queue.priorityClass }}
{{- end -}}
{{- end }}
