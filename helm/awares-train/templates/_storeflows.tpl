{{/* NetworkPolicies for traffic to the store. The input of each template is the chart's root
context ($). */}}

{{/* The policies for traffic from Ray's pods and the test pods to S3 and to the servers from which
models are downloaded. */}}
{{- define "awares.storeFlows" }}
{{- $clients := append (include "awares.clusters" . | fromJsonArray) "test" }}
{{- $expressions := list (dict "key" "app.kubernetes.io/component" "operator" "In" "values"
    $clients) }}
{{ include "awares.flow" (dict "root" . "flow" "store" "expressions" $expressions "rules"
    (include "awares.storeRules" . | trim)) }}
{{- if .Values.seaweedfs.enabled }}
{{- $from := list (dict "podSelector" (dict "matchLabels"
    (include "awares.releaseLabels" . | fromYaml) "matchExpressions" $expressions)) }}
{{- $ports := list (dict "port" 8333 "protocol" "TCP") }}
{{- $rules := dict "policyTypes" (list "Ingress") "ingress"
    (list (dict "from" $from "ports" $ports)) }}
{{- $select := dict "app.kubernetes.io/component" "seaweedfs" }}
{{ include "awares.flow" (dict "root" . "flow" "seaweedfs" "select" $select "rules"
    (toYaml $rules)) }}
{{- end }}
{{- end }}

{{- define "awares.storeRules" }}
policyTypes: [Egress]
egress:
  {{- if .Values.seaweedfs.enabled }}
  - to:
      - {{ include "awares.peer" (dict "root" . "component" "seaweedfs") | nindent 8 | trim }}
    ports:
      - {port: 8333, protocol: TCP}
  {{- end }}
  - to:
      {{- range .Values.networkPolicy.store.cidrs }}
      - ipBlock:
          cidr: {{ . }}
          {{- if eq . "0.0.0.0/0" }}
          except: {{ toJson $.Values.networkPolicy.store.except }}
          {{- end }}
      {{- end }}
    ports:
      {{- include "awares.storePorts" . | trim | nindent 6 }}
  {{- with .Values.networkPolicy.identity.cidrs }}
  - to:
      {{- range . }}
      - ipBlock: {cidr: {{ . }}}
      {{- end }}
    ports:
      - {port: 80, protocol: TCP}
  {{- end }}
{{- end }}

{{/* The ports of S3 and of the servers from which models are downloaded. */}}
{{- define "awares.storePorts" -}}
{{- $ports := .Values.networkPolicy.store.ports -}}
{{- $address := .Values.store.endpoint | default "" -}}
{{- if $address -}}
{{- $given := urlParse $address | dig "host" "" | regexFind ":[0-9]+$" | trimPrefix ":" -}}
{{- $ports = append $ports ($given | default (hasPrefix "http://" $address | ternary 80 443) |
    int) -}}
{{- end -}}
{{- range uniq $ports }}
- {port: {{ int . }}, protocol: TCP}
{{- end }}
{{- end }}
