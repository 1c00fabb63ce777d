{{/* Node selectors and tolerations: which nodes a pod may use. With .Values.target, each pod
selects the nodes of one pool of manifests/. In the inputs, root is the chart's root context ($).
*/}}

{{/* The pool of a worker group. Input: the input of awares.workerGroup. */}}
{{- define "awares.pool" -}}
{{- if .group.pool -}}
{{ .group.pool }}
{{- else if not .group.gpus -}}
cpu
{{- else if eq .component "endpoint" -}}
endpoint
{{- else -}}
{{ eq .name "rollout" | ternary "rollout" "learner" }}
{{- end -}}
{{- end }}

{{/* The labels that select the nodes of a pool. GKE creates a node only for a pod that selects the
compute class. Input: root, pool. */}}
{{- define "awares.poolLabels" -}}
{{- if .root.Values.target }}
awares-train/pool: {{ .pool }}
{{- end }}
{{- if eq .root.Values.target "gke" }}
cloud.google.com/compute-class: awares-{{ .pool }}
{{- end }}
{{- end }}

{{/* The labels that select spot nodes. Nodes on premises have none. Input: the root. */}}
{{- define "awares.spotLabels" -}}
{{- if eq .Values.target "gke" -}}
cloud.google.com/gke-spot: "true"
{{- else if ne .Values.target "onprem" -}}
karpenter.sh/capacity-type: spot
{{- end -}}
{{- end }}

{{/* The tolerations for the nodes of a pool, as a JSON list. Input: root, pool, spot (whether the
pod selects spot nodes). */}}
{{- define "awares.poolTolerations" -}}
{{- $found := list -}}
{{- $target := .root.Values.target -}}
{{- if and $target (ne .pool "cpu") -}}
{{- $found = append $found (dict "key" "nvidia.com/gpu" "operator" "Exists" "effect"
    "NoSchedule") -}}
{{- end -}}
{{- if eq $target "gke" -}}
{{- $found = append $found (dict "key" "cloud.google.com/compute-class" "operator" "Equal" "value"
    (printf "awares-%s" .pool) "effect" "NoSchedule") -}}
{{- end -}}
{{- $spot := get (dict "gke" "cloud.google.com/gke-spot" "aks"
    "kubernetes.azure.com/scalesetpriority") $target -}}
{{- if and .spot $spot -}}
{{- $found = append $found (dict "key" $spot "operator" "Exists" "effect" "NoSchedule") -}}
{{- end -}}
{{ toJson $found }}
{{- end }}

{{/* The nodeSelector and tolerations of a pod. The user's labels win over the pool's labels, and a
null removes a label. Input: root, pool, and for a head or worker also settings (its values). */}}
{{- define "awares.placement" -}}
{{- $settings := get . "settings" | default dict -}}
{{- $spot := get $settings "spot" | default dict -}}
{{- $labels := include "awares.poolLabels" . | fromYaml -}}
{{- if get $spot "enabled" -}}
{{- $labels = merge (include "awares.spotLabels" .root | fromYaml) $labels -}}
{{- range $key, $value := $spot.nodeSelector }}{{ $_ := set $labels $key $value }}{{ end -}}
{{- end -}}
{{- range $key, $value := get $settings "nodeSelector" | default dict -}}
{{- $_ := set $labels $key $value -}}
{{- end -}}
{{- with include "awares.present" $labels | fromYaml }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- $tolerations := concat (get $settings "tolerations" | default list)
    (include "awares.poolTolerations" (merge (dict "spot" (get $spot "enabled")) .) |
    fromJsonArray) }}
{{- if get $spot "enabled" }}{{ $tolerations = concat $tolerations $spot.tolerations }}{{ end }}
{{- with uniq $tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
