{{/* Flows to DNS, heads and the endpoint, and from Prometheus. Input of each: the root, unless it says otherwise. */}}

{{/* Jobs API and dashboard (8265): from the operator, submitters and tests; a test asks Ray, a submitter submits. */}}
{{- define "awares.headFlows" }}
{{- $heads := dict "ray.io/node-type" "head" }}
{{- include "awares.flow" (dict "root" . "flow" "dashboard" "select" $heads "rules" (include "awares.dashboardRules" . | trim)) }}
{{- range include "awares.clients" . | fromJsonArray }}
{{- $rules := include "awares.clientRules" (dict "root" $ "endpoint" (and (eq . "test") $.Values.endpoint.enabled)) | trim }}
{{ include "awares.flow" (dict "root" $ "flow" . "select" (dict "app.kubernetes.io/component" .) "rules" $rules) }}
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
{{- /* Of all pods of the component: the operator's clean-up of Redis is one, too. */}}
{{- $port := regexFind "[0-9]+$" $settings.gcsFaultTolerance.redisAddress | default "6379" }}
{{- $rules := printf "policyTypes: [Egress]\negress:\n  - ports: [{port: %s, protocol: TCP}]" $port }}
{{ include "awares.flow" (dict "root" $ "flow" (printf "redis-%s" $component) "rules" $rules
    "select" (dict "app.kubernetes.io/component" $component)) }}
{{- end }}
{{- end }}
{{- end }}

{{/* Components that ask heads, as a JSON list. */}}
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
          matchLabels: {{ include "awares.present" .Values.networkPolicy.operator.namespaceLabels | fromYaml | toJson }}
        podSelector:
          matchLabels: {{ include "awares.present" .Values.networkPolicy.operator.podLabels | fromYaml | toJson }}
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

{{/* Of submitters and tests. Input: root, endpoint (whether it asks it, too). */}}
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
      - {{ include "awares.peer" (dict "root" .root "component" "endpoint" "type" "worker") | nindent 8 | trim }}
    ports:
      - {port: 8000, protocol: TCP}
  {{- end }}
{{- end }}

{{/* The autoscaler changes its RayCluster. */}}
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

{{/* Port 8000 of the endpoint's workers. */}}
{{- define "awares.endpointFlow" }}
{{- $select := dict "app.kubernetes.io/component" "endpoint" "ray.io/node-type" "worker" }}
{{ include "awares.flow" (dict "root" . "flow" "endpoint" "select" $select "rules" (include "awares.endpointRules" . | trim)) }}
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

{{/* Input: networkPolicy.dns. */}}
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
      - {port: 53, protocol: UDP}
      - {port: 53, protocol: TCP}
{{- end }}

{{/* Prometheus asks every Ray pod; a head also for its autoscaler and dashboard. */}}
{{- define "awares.metricsRules" }}
policyTypes: [Ingress]
ingress:
  - from:
      - namespaceSelector:
          matchLabels: {{ include "awares.present" .Values.networkPolicy.monitoring.namespaceLabels | fromYaml | toJson }}
    ports:
      - {port: 8080, protocol: TCP}
      - {port: 44217, protocol: TCP}
      - {port: 44227, protocol: TCP}
{{- end }}
