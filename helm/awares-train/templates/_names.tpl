{{/* Names of objects, labels, the container image, and names of service accounts. In the inputs,
root is the chart's root context ($). */}}

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
The name <fullname>-<part> of an object. Fail if the name is too long for the object's `kind`, or is
not a DNS-1035 name. Never shorten the name, because two releases could then share it. KubeRay cuts
the names of the Services that it creates to 50 characters, which limits the names of RayClusters
and RayServices. Input: root, part, kind.
*/}}
{{- define "awares.name" -}}
{{- $limits := dict "RayCluster" 41 "RayService" 40 "RayJob" 47 "RayCronJob" 36 "Service" 63
    "StatefulSet" 52 -}}
{{- $limit := get $limits (.kind | default "Service") | default 63 -}}
{{- $name := printf "%s-%s" (include "awares.fullname" .root) .part -}}
{{- if gt (len $name) (int $limit) -}}
{{- $remedy := printf "choose a shorter release name than %q, or set fullnameOverride"
    .root.Release.Name -}}
{{- fail (printf "\n\n%s %q has %d characters, and the limit is %d: %s" .kind $name (len $name)
    (int $limit) $remedy) -}}
{{- end -}}
{{- if not (regexMatch "^[a-z]([-a-z0-9]*[a-z0-9])?$" $name) -}}
{{- $remedy :=
    "start the release name or fullnameOverride with a letter; use a-z, 0-9 and '-' only" -}}
{{- fail (printf "\n\n%s %q is not a DNS-1035 name: %s" .kind $name $remedy) -}}
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

{{/* The labels of an object. Input: root, component. */}}
{{- define "awares.labels" -}}
app.kubernetes.io/name: {{ .root.Values.nameOverride | default .root.Chart.Name | quote }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ .root.Chart.Name }}-{{ .root.Chart.Version | replace "+" "_" }}
{{ include "awares.podLabels" . }}
{{- with .root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/*
The labels that select a pod. Input: root, component. The labels omit app.kubernetes.io/name,
because KubeRay sets a value of its own, by which its Services select heads. The labels omit the
version, because each new version would change the pod template. KubeRay could then create a second
cluster for the endpoint.
*/}}
{{- define "awares.podLabels" -}}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/part-of: awares-train
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{/* The labels that all pods of the release have. */}}
{{- define "awares.releaseLabels" -}}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/part-of: awares-train
{{- end }}

{{- define "awares.image" -}}
{{- with .Values.image -}}
{{ .repository }}{{ if .digest }}@{{ .digest }}{{ else }}:{{ .tag | default
    $.Chart.AppVersion }}{{ end }}
{{- end -}}
{{- end }}

{{/* The name of a service account. Input: root, who (runs or endpoint). */}}
{{- define "awares.serviceAccount" -}}
{{- $account := get .root.Values.serviceAccounts .who -}}
{{ $account.name | default (include "awares.name" (dict "root" .root "part" .who "kind"
    "ServiceAccount")) }}
{{- end }}
