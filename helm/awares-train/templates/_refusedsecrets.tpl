{{/* Refuse a missing name of a Secret, and a Secret that does not exist. Also refuse a service
account without a name, and labels and environment variables that the chart sets. */}}

{{/* "yes" if Helm can ask a cluster. Without a cluster, lookup returns nothing, not even an empty
list. */}}
{{- define "awares.live" -}}
{{- if lookup "v1" "Secret" .Release.Namespace "" }}yes{{ end -}}
{{- end }}

{{- define "awares.refuseSecrets" }}
{{- if and (ne .Values.auth.mode "disabled") (not .Values.auth.existingSecret) }}
auth.existingSecret is not set: run kubectl create secret generic awares-ray
  --from-literal=auth_token=$(openssl rand -hex 24), then set auth.existingSecret=awares-ray
{{- end }}
{{- $tokens := .Values.endpoint.token }}
{{- if and .Values.endpoint.enabled (not $tokens.existingSecret) (not $tokens.open)
    (not .Values.endpoint.keys.existingSecret) }}
endpoint.token.existingSecret is not set: run kubectl create secret generic awares-endpoint
  --from-literal=token=$(openssl rand -hex 24), then set
  endpoint.token.existingSecret=awares-endpoint, or endpoint.keys.existingSecret for a key for each
  client, or endpoint.token.open=true for an endpoint without a token
{{- end }}
{{- $accounts := .Values.serviceAccounts }}
{{- if not .Values.store.existingSecret }}
{{- if .Values.seaweedfs.enabled }}
store.existingSecret is not set, and SeaweedFS needs keys: name a Secret with AWS_ACCESS_KEY_ID and
  AWS_SECRET_ACCESS_KEY
{{- else if .Values.store.podIdentity }}
{{- else if and $accounts.runs.create (not $accounts.runs.annotations) }}
store.existingSecret is not set, and serviceAccounts.runs.annotations name no cloud identity: name a
  Secret with AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or annotate the service account
{{- else if and .Values.endpoint.enabled $accounts.endpoint.create
    (not $accounts.endpoint.annotations) }}
store.existingSecret is not set, and serviceAccounts.endpoint.annotations name no cloud identity:
  name a Secret with AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or annotate the service account
{{- end }}
{{- end }}
{{- if not .Values.store.existingSecret }}
{{- range $who, $account := $accounts }}
{{- range $key := keys $account.annotations | sortAlpha }}
{{- if or (hasPrefix "iam.gke.io/" $key) (hasPrefix "azure.workload.identity/" $key) }}
serviceAccounts.{{ $who }}.annotations.{{ $key }} gives no keys for S3, and the platform speaks
  only S3: name a Secret with keys of an S3-compatible store in store.existingSecret
{{- end }}
{{- end }}
{{- end }}
{{- end }}
{{- include "awares.refuseExternalSecret" . }}
{{- if include "awares.live" . }}
{{- include "awares.refuseMissing" . }}
{{- end }}
{{- end }}

{{- define "awares.refuseExternalSecret" }}
{{- $external := .Values.store.externalSecret }}
{{- if $external.enabled }}
{{- if not (and .Values.store.existingSecret $external.secretStoreRef.name) }}
store.externalSecret.enabled needs store.existingSecret (the Secret to write) and
  store.externalSecret.secretStoreRef.name (the store to read): set both
{{- end }}
{{- range $key, $ref := $external.remoteRefs }}
{{- if not $ref.key }}
store.externalSecret.remoteRefs.{{ $key }}.key is empty: name the remote secret that holds it
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{/* Refuse Secrets that do not exist or lack a key. This works only if Helm can ask a cluster. */}}
{{- define "awares.refuseMissing" }}
{{- $wanted := list }}
{{- if not .Values.store.externalSecret.enabled }}
{{- $keys := list "AWS_ACCESS_KEY_ID" "AWS_SECRET_ACCESS_KEY" }}
{{- $wanted = append $wanted (list "store.existingSecret" .Values.store.existingSecret $keys) }}
{{- end }}
{{- if ne .Values.auth.mode "disabled" }}
{{- $wanted = append $wanted (list "auth.existingSecret" .Values.auth.existingSecret
    (list "auth_token")) }}
{{- end }}
{{- if .Values.endpoint.enabled }}
{{- $wanted = append $wanted (list "endpoint.token.existingSecret"
    .Values.endpoint.token.existingSecret (list "token")) }}
{{- $wanted = append $wanted (list "endpoint.keys.existingSecret"
    .Values.endpoint.keys.existingSecret (list "keys.json")) }}
{{- end }}
{{- range $part := list .Values.cluster .Values.endpoint }}
{{- if and $part.enabled $part.gcsFaultTolerance.enabled }}
{{- $wanted = append $wanted (list "gcsFaultTolerance.existingSecret"
    $part.gcsFaultTolerance.existingSecret (list "redis-password")) }}
{{- end }}
{{- end }}
{{- range $wanted }}
{{- include "awares.refuseMissingKeys" (dict "root" $ "value" (first .) "name" (index . 1) "keys"
    (last .)) }}
{{- end }}
{{- end }}

{{/* Refuse one Secret that does not exist or lacks a key. Input: root, value (the key of
values.yaml that names the Secret), name (of the Secret), keys. */}}
{{- define "awares.refuseMissingKeys" }}
{{- $place := .root.Release.Namespace }}
{{- $data := dict }}
{{- if .name }}{{ $data = dig "data" dict (lookup "v1" "Secret" $place .name) | default
    dict }}{{ end }}
{{- $missing := list }}
{{- range .keys }}{{ if not (hasKey $data .) }}{{ $missing = append $missing . }}{{ end }}{{ end }}
{{- if and .name $missing }}
{{ .value }}={{ .name }}: namespace {{ $place }} has no such Secret with the key
  {{ join " and the key " $missing }}: run kubectl create secret generic {{ .name }} --namespace
  {{ $place }}{{ range .keys }} --from-literal={{ . }}=...{{ end }}
{{- end }}
{{- end }}

{{- define "awares.refuseAccounts" }}
{{- range $who, $account := .Values.serviceAccounts }}
{{- if and (not $account.create) (not $account.name)
    (or (eq $who "runs") $.Values.endpoint.enabled) }}
serviceAccounts.{{ $who }}.create=false without serviceAccounts.{{ $who }}.name: name an existing
  service account, such as default
{{- end }}
{{- end }}
{{- end }}

{{/* Refuse labels and environment variables in the user's `pods` that the chart or KubeRay sets,
because the user's value would replace the other value. */}}
{{- define "awares.refusePods" }}
{{- range $place, $labels := dict "pods.labels" .Values.pods.labels "commonLabels"
    .Values.commonLabels }}
{{- range $key := keys $labels | sortAlpha }}
{{- if regexMatch
    "^(ray[.]io/.*|app[.]kubernetes[.]io/(instance|part-of|component)|helm[.]sh/chart)$" $key }}
{{ $place }}.{{ $key }} would replace a label by which policies, budgets and Services select pods:
  remove it, or use another key
{{- end }}
{{- end }}
{{- end }}
{{- $ours := list "AWARES_SERVE_TOKEN" "NVIDIA_VISIBLE_DEVICES" }}
{{- range include "awares.env" . | fromYamlArray }}{{ $ours = append $ours .name }}{{ end }}
{{- range .Values.pods.env }}
{{- if has .name $ours }}
pods.env names {{ .name }}, which the chart sets: remove it
{{- end }}
{{- end }}
{{- end }}
