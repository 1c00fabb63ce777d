{{/* NetworkPolicies for heads and the endpoint, and rules of policies for DNS and Prometheus. The
input of a template is the chart's root context ($), unless its comment names another input. */}}

{{/* Policies for traffic to heads from the operator, submitter pods, test pods and the pods in
networkPolicy.dashboard.from. Also policies for traffic from heads with an autoscaler to the
Kubernetes API, and from Ray clusters to Redis. */}}
{{- define "awares.headFlows" }}
{{- $heads := dict "ray.io/node-type" "head" }}
{{- include "awares.flow" (dict "root" . "flow" "dashboard" "select" $heads "rules"
    (include "awares.dashboardRules" . | trim)) }}
{{- range include "awares.clients" . | fromJsonArray }}
{{- $rules := include "awares.clientRules" (dict "root" $ "endpoint"
    (and (eq . "test") $.Values.endpoint.enabled)) | trim }}
{{ include "awares.flow" (dict "root" $ "flow" . "select" (dict "app.kubernetes.io/component" .)
    "rules" $rules) }}
{{- end }}
{{- $scaled := list }}
{{- range include "awares.clusters" . | fromJsonArray }}
{{- $settings := eq . "endpoint" | ternary $.Values.endpoint $.Values.cluster }}
{{- if $settings.autoscaler.enabled }}{{ $scaled = append $scaled . }}{{ end }}
{{- end }}
{{- if $scaled }}
{{- $among := list (dict "key" "app.kubernetes.io/component" "operator" "In" "values" $scaled) }}
{{ include "awares.flow" (dict "root" . "flow" "api-server" "select" $heads "expressions" $among
    "rules" (include "awares.apiServerRules" . | trim)) }}
{{- end }}
{{- range $component := include "awares.clusters" . | fromJsonArray }}
{{- $settings := eq $component "endpoint" | ternary $.Values.endpoint $.Values.cluster }}
{{- if $settings.gcsFaultTolerance.enabled }}
{{- /* Select all pods of the component, not only heads, because the operator cleans up Redis with a
pod that is not a head. */}}
{{- $port := regexFind "[0-9]+$" $settings.gcsFaultTolerance.redisAddress | default "6379" }}
{{- $rules := printf "policyTypes: [Egress]\negress:\n  - ports: [{port: %s, protocol: TCP}]"
    $port }}
{{ include "awares.flow" (dict "root" $ "flow" (printf "redis-%s" $component) "rules" $rules
    "select" (dict "app.kubernetes.io/component" $component)) }}
{{- end }}
{{- end }}
{{- end }}

{{/* The components whose pods send requests to heads, as a JSON list. */}}
{{- define "awares.clients" -}}
{{- $clients := list -}}
{{- if include "awares.submits" . }}{{ $clients = append $clients "submitter" }}{{ end -}}
{{- if .Values.tests.enabled }}{{ $clients = append $clients "test" }}{{ end -}}
{{ toJson $clients }}
{{- end }}

{{- define "awares.dashboardRules" }}
policyTypes: [Ingress]
ingress:
  - from:
      - namespaceSelector:
          matchLabels: {{ include "awares.present" .Values.networkPolicy.operator.namespaceLabels |
              fromYaml | toJson }}
        podSelector:
          matchLabels: {{ include "awares.present" .Values.networkPolicy.operator.podLabels |
              fromYaml | toJson }}
    ports:
      - {port: 8265, protocol: TCP}
      - {port: 8000, protocol: TCP}
  {{- $clients := include "awares.clients" . | fromJsonArray }}
  {{- if or $clients .Values.networkPolicy.dashboard.from }}
  - from:
      {{- range $clients }}
      - {{ include "awares.peer" (dict "root" $ "component" .) | nindent 8 | trim }}
      {{- end }}
      {{- with .Values.networkPolicy.dashboard.from }}{{ toYaml . | nindent 6 }}{{ end }}
    ports:
      - {port: 8265, protocol: TCP}
  {{- end }}
{{- end }}

{{/* Rules for traffic from submitter pods or test pods. Input: root, endpoint (whether the pods
also send requests to the endpoint). */}}
{{- define "awares.clientRules" }}
policyTypes: [Egress]
egress:
  - to:
      - podSelector:
          matchLabels:
            {{- include "awares.releaseLabels" .root | nindent 12 }}
            ray.io/node-type: head
    ports:
      - {port: 8265, protocol: TCP}
  {{- if .endpoint }}
  - to:
      - {{ include "awares.peer" (dict "root" .root "component" "endpoint" "type" "worker") |
          nindent 8 | trim }}
    ports:
      - {port: 8000, protocol: TCP}
  {{- end }}
{{- end }}

{{/* Rules for traffic to the Kubernetes API, through which the autoscaler changes its RayCluster.
*/}}
{{- define "awares.apiServerRules" }}
policyTypes: [Egress]
egress:
  - to:
      {{- range .Values.networkPolicy.apiServer.cidrs }}
      - ipBlock: {cidr: {{ . }}}
      {{- end }}
    ports:
      {{- range .Values.networkPolicy.apiServer.ports }}
      - {port: {{ . }}, protocol: TCP}
      {{- end }}
{{- end }}

{{/* Policy for traffic to port 8000 of the endpoint's workers. */}}
{{- define "awares.endpointFlow" }}
{{- $select := dict "app.kubernetes.io/component" "endpoint" "ray.io/node-type" "worker" }}
{{ include "awares.flow" (dict "root" . "flow" "endpoint" "select" $select "rules"
    (include "awares.endpointRules" . | trim)) }}
{{- end }}

{{- define "awares.endpointRules" }}
policyTypes: [Ingress]
ingress:
  - from:
      {{- with .Values.networkPolicy.endpoint.from }}
      {{- toYaml . | nindent 6 }}
      {{- else }}
      - namespaceSelector: {}
      {{- end }}
      {{- if .Values.tests.enabled }}
      - {{ include "awares.peer" (dict "root" . "component" "test") | nindent 8 | trim }}
      {{- end }}
      {{- range .Values.networkPolicy.endpoint.cidrs }}
      - ipBlock: {cidr: {{ . }}}
      {{- end }}
    ports:
      - {port: 8000, protocol: TCP}
{{- end }}

{{/* Rules for traffic to the cluster's DNS. Input: networkPolicy.dns. */}}
{{- define "awares.dnsRules" }}
policyTypes: [Egress]
egress:
  - to:
      - namespaceSelector:
          matchLabels: {{ include "awares.present" .namespaceLabels | fromYaml | toJson }}
        podSelector:
          matchLabels: {{ include "awares.present" .podLabels | fromYaml | toJson }}
      {{- range .cidrs }}
      - ipBlock: {cidr: {{ . }}}
      {{- end }}
    ports:
      {{- range .ports }}
      - {port: {{ . }}, protocol: UDP}
      - {port: {{ . }}, protocol: TCP}
      {{- end }}
{{- end }}

{{/* Rules for traffic from Prometheus to every Ray pod. A head also exposes metrics of its
autoscaler and of its dashboard. */}}
{{- define "awares.metricsRules" }}
policyTypes: [Ingress]
ingress:
  - from:
      - namespaceSelector:
          matchLabels: {{ include "awares.present" .Values.networkPolicy.monitoring.namespaceLabels
              | fromYaml | toJson }}
    ports:
      - {port: 8080, protocol: TCP}
      - {port: 44217, protocol: TCP}
      - {port: 44227, protocol: TCP}
{{- end }}
