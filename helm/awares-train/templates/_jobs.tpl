{{/* Specs of RayJobs: the command, the cluster, the submitter pod, and the clean-up after the job.
In the inputs, root is the chart's root context ($). */}}

{{/* A job's values merged over jobDefaults, as YAML. Input: root, job. */}}
{{- define "awares.job" -}}
{{ include "awares.over" (dict "defaults" .root.Values.jobDefaults "given" .job) }}
{{- end }}

{{/* The name of a job's object. Input: root, name, job, kind (RayJob or RayCronJob). */}}
{{- define "awares.jobName" -}}
{{ include "awares.name" (dict "root" .root "part" (list .name .job.suffix | compact | join "-")
    "kind" .kind) }}
{{- end }}

{{/* The command line of a job. KubeRay copies it into a shell script without quotes. Several
commands must therefore be one quoted argument of `sh -c`. Input: name, job. */}}
{{- define "awares.entrypoint" -}}
{{- $job := .job -}}
{{- $commands := list -}}
{{- $wait := include "awares.waits" . | eq "yes" | ternary (list "run.wait_s=86400") list -}}
{{- range concat $job.before (list .name) $job.after -}}
{{- $words := concat (list "python" (printf "jobs/%s.py" .) "--config" "/etc/awares/setup.toml")
    $wait $job.args -}}
{{- $commands = append $commands (join " " $words) -}}
{{- end -}}
{{- if gt (len $commands) 1 -}}
sh -c "{{ join " && " $commands }}"
{{- else -}}
{{ first $commands }}
{{- end -}}
{{- end }}

{{/* "yes" if an earlier job of the pipeline is a RayJob of its own, and otherwise empty. With
"yes", this job must wait for the results of the earlier job, because a queue may start the jobs in
any order. Input: root, name, job. */}}
{{- define "awares.waits" -}}
{{- $order := list "curate" "sft" "grpo" "evaluate" -}}
{{- $own := concat .job.before (list .name) -}}
{{- $found := false -}}
{{- $passed := false -}}
{{- range $other := $order -}}
{{- if eq $other $.name }}{{ $passed = true }}{{ end -}}
{{- $job := include "awares.job" (dict "root" $.root "job" (get $.root.Values.jobs $other)) |
    fromYaml -}}
{{- if and $job.enabled (not $job.schedule) (not $passed) (not (has $other $own)) -}}
{{- $found = true -}}
{{- end -}}
{{- end -}}
{{- if and $found (has .name $order) }}yes{{ end -}}
{{- end }}

{{/* The spec of a RayJob. Input: root, name, job. */}}
{{- define "awares.jobSpec" -}}
{{- $root := .root -}}
entrypoint: {{ include "awares.entrypoint" . | toJson }}
submissionMode: K8sJobMode
{{- if eq .job.cluster "shared" }}
clusterSelector:
  ray.io/cluster: {{ include "awares.clusterName" $root }}
{{- else }}
{{- if .job.suspend }}
suspend: true
{{- end }}
backoffLimit: {{ int64 .job.backoffLimit }}
rayClusterSpec:
  {{- include "awares.clusterSpec" (dict "root" $root "component" (printf "job-%s" .name) "settings"
      $root.Values.cluster
      "groups" .job.groups "account" "runs" "setup" true "queued" true
      "autoscaler" $root.Values.cluster.autoscaler.enabled) | nindent 2 }}
{{- end }}
{{- include "awares.jobEnd" . }}
{{- with .job.activeDeadlineSeconds }}
activeDeadlineSeconds: {{ int64 . }}
{{- end }}
{{- with .job.preRunningDeadlineSeconds }}
preRunningDeadlineSeconds: {{ int64 . }}
{{- end }}
submitterConfig:
  backoffLimit: {{ int64 .job.submitterBackoffLimit }}
submitterPodTemplate:
  {{- include "awares.submitter" $root | nindent 2 }}
{{- end }}

{{/* The fields that tell KubeRay how to clean up after the job: either deletion rules or a time to
live, because KubeRay accepts only one of the two. A shared cluster stays. Input: job. */}}
{{- define "awares.jobEnd" -}}
{{- if .job.deletionRules }}
deletionStrategy:
  deletionRules:
    {{- toYaml .job.deletionRules | nindent 4 }}
{{- else if eq .job.cluster "own" }}
shutdownAfterJobFinishes: true
ttlSecondsAfterFinished: {{ kindIs "invalid" .job.ttlSecondsAfterFinished | ternary 600
    .job.ttlSecondsAfterFinished | int64 }}
{{- end }}
{{- end }}

{{/* The template of the pod that submits the job. KubeRay adds the command and Ray's token to the
pod's first container. */}}
{{- define "awares.submitter" -}}
metadata:
  labels:
    {{- include "awares.podLabels" (dict "root" . "component" "submitter") | nindent 4 }}
    {{- with merge (deepCopy .Values.pods.labels) .Values.commonLabels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  restartPolicy: Never
  serviceAccountName: {{ include "awares.serviceAccount" (dict "root" . "who" "runs") | quote }}
  {{- include "awares.plainPod" . | nindent 2 }}
  {{- with include "awares.placement" (dict "root" . "pool" "cpu") | trim }}
  {{- . | nindent 2 }}
  {{- end }}
  {{- with include "awares.initContainers" . | trim }}{{ . | nindent 2 }}{{ end }}
  containers:
    - name: ray-job-submitter
      {{- include "awares.plainContainer" . | nindent 6 }}
      env:
        {{- include "awares.homeEnv" . | nindent 8 }}
        {{- include "awares.noGpuEnv" . | nindent 8 }}
        {{- with .Values.pods.env }}{{ toYaml . | nindent 8 }}{{ end }}
      resources:
        {{- toYaml .Values.submitter.resources | nindent 8 }}
      volumeMounts:
        {{- include "awares.mounts" (dict "root" .) | nindent 8 }}
  volumes:
    {{- include "awares.volumes" (dict "root" .) | nindent 4 }}
{{- end }}
