{{/* Names, labels, the image, and service accounts. */}}

{{- define "awares.fullname" -}}
{{- $name := .Values.nameOverride | default .Chart.Name -}}
{{- if .Values.fullnameOverride -}}
{{ .Values.fullnameOverride }}
{{- else if contains $name .Release.Name -}}
{{ .Release.Name }}
{{- else -}}
{{ .Release.Name }}-{{ $name }}
{{- end -}}
{{- end }}

{{/*
<fullname>-<part>, refused when `kind` takes no name of that length. Nothing is cut: two releases would share a name.
Input: root, part, kind. The Services that KubeRay names after a cluster or service end at 50 characters, which is what limits those two.
*/}}
{{- define "awares.name" -}}
{{- $limits := dict "RayCluster" 41 "RayService" 40 "RayJob" 47 "RayCronJob" 36 "Service" 63 "StatefulSet" 52 -}}
{{- $limit := get $limits (.kind | default "Service") | default 63 -}}
{{- $name := printf "%s-%s" (include "awares.fullname" .root) .part -}}
{{- if gt (len $name) (int $limit) -}}
{{- fail (printf "\n\n%s %q has %d characters, and the limit is %d: choose a shorter release name than %q, or set fullnameOverride"
    .kind $name (len $name) (int $limit) .root.Release.Name) -}}
{{- end -}}
{{- if not (regexMatch "^[a-z]([-a-z0-9]*[a-z0-9])?$" $name) -}}
{{- fail (printf "\n\n%s %q is no DNS-1035 name: begin the release name or fullnameOverride with a small letter, then letters, digits, '-'"
    .kind $name) -}}
{{- end -}}
{{ $name }}
{{- end }}

{{- define "awares.clusterName" -}}
{{ include "awares.name" (dict "root" . "part" "cluster" "kind" "RayCluster") }}
{{- end }}

{{- define "awares.endpointName" -}}
{{ include "awares.name" (dict "root" . "part" "endpoint" "kind" "RayService") }}
{{- end }}

{{- define "awares.setupName" -}}
{{ include "awares.name" (dict "root" . "part" "setup" "kind" "ConfigMap") }}
{{- end }}

{{- define "awares.seaweedfsName" -}}
{{ include "awares.name" (dict "root" . "part" "seaweedfs" "kind" "StatefulSet") }}
{{- end }}

{{/* Labels of an object. Input: root, component. */}}
{{- define "awares.labels" -}}
app.kubernetes.io/name: {{ .root.Values.nameOverride | default .root.Chart.Name | quote }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ .root.Chart.Name }}-{{ .root.Chart.Version | replace "+" "_" }}
{{ include "awares.podLabels" . }}
{{- end }}

{{/*
Labels of a pod, and what selects it. Input: root, component. Without app.kubernetes.io/name: KubeRay's Services select heads by its own
value of that label. Without a version: a changed pod template makes KubeRay build a second endpoint.
*/}}
{{- define "awares.podLabels" -}}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/part-of: awares-train
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{/* What all pods of the release have in common. */}}
{{- define "awares.releaseLabels" -}}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/part-of: awares-train
{{- end }}

{{- define "awares.image" -}}
{{- with .Values.image -}}
{{ .repository }}{{ if .digest }}@{{ .digest }}{{ else }}:{{ .tag | default $.Chart.AppVersion }}{{ end }}
{{- end -}}
{{- end }}

{{/* Name of a service account. Input: root, who (runs or endpoint). */}}
{{- define "awares.serviceAccount" -}}
{{- $account := get .root.Values.serviceAccounts .who -}}
{{ $account.name | default (include "awares.name" (dict "root" .root "part" .who "kind" "ServiceAccount")) }}
{{- end }}
