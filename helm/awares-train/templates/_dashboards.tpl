{{/* Render the dashboards of monitoring/dashboards.yaml as JSON for Grafana. */}}

{{/* One dashboard as JSON, with two panels in each row. Input: name, dashboard. */}}
{{- define "awares.dashboard" -}}
{{- $panels := list -}}
{{- range $index, $panel := .dashboard.panels -}}
{{- $place := dict "x" (mul (mod $index 2) 12) "y" (mul (div $index 2) 8) "w" 12 "h" 8 -}}
{{- $targets := include "awares.dashboardTargets" $panel | fromJsonArray -}}
{{- $defaults := dict "defaults" (dict "unit" $panel.unit "custom"
    (dict "fillOpacity" 0 "showPoints" "never")) -}}
{{- $panels = append $panels (dict "id" (add $index 1) "type" "timeseries" "title" $panel.title
    "gridPos" $place "targets" $targets
    "datasource" (dict "type" "prometheus" "uid" "${source}") "fieldConfig" $defaults) -}}
{{- end -}}
{{- $source := dict "name" "source" "type" "datasource" "query" "prometheus" -}}
{{- $namespace := dict "name" "namespace" "type" "query" "datasource"
    (dict "type" "prometheus" "uid" "${source}")
    "query" "label_values(ray_node_cpu_count, namespace)" "refresh" 2 -}}
{{- dict "uid" (printf "awares-%s" .name) "title" .dashboard.title "tags" (list "awares-train")
    "schemaVersion" 39
    "refresh" "30s" "editable" true "time" (dict "from" "now-3h" "to" "now")
    "templating" (dict "list" (list $source $namespace)) "panels" $panels | toPrettyJson -}}
{{- end }}

{{/* The queries of a panel, as a JSON list. There is one query for each metric in `series`, and one
for each query in `expressions`. Input: a panel. */}}
{{- define "awares.dashboardTargets" -}}
{{- $panel := . -}}{{ $targets := list -}}
{{- $select := `namespace="$namespace"` -}}
{{- range $legend, $metric := get $panel "series" | default dict -}}
{{- $targets = append $targets (dict "refId" (printf "Q%d" (len $targets)) "expr"
    (printf "%s{%s}" $metric $select)
    "legendFormat" (list $legend (get $panel "legend" | default "{{job}}") | compact | join
        " ")) -}}
{{- end -}}
{{- range $legend, $expression := get $panel "expressions" | default dict -}}
{{- $targets = append $targets (dict "refId" (printf "Q%d" (len $targets)) "expr"
    (replace "SELECT" $select $expression)
    "legendFormat" ($legend | default (get $panel "legend"))) -}}
{{- end -}}
{{ toJson $targets }}
{{- end }}
