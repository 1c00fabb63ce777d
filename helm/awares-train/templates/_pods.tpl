{{/* The parts that pods share: security context, environment, volumes. */}}

{{- define "awares.podSecurity" -}}
runAsNonRoot: true
{{- range $key := list "runAsUser" "runAsGroup" "fsGroup" }}
{{- with get $.Values.podSecurity $key }}
{{ $key }}: {{ int64 . }}
{{- end }}
{{- end }}
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{- define "awares.containerSecurity" -}}
allowPrivilegeEscalation: false
privileged: false
readOnlyRootFilesystem: {{ .Values.podSecurity.readOnlyRootFilesystem }}
runAsNonRoot: true
capabilities:
  drop: [ALL]
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{/* The path of the file with the certificates of pods.caBundle in a container. */}}
{{- define "awares.caFile" -}}
/etc/awares-ca/{{ .Values.pods.caBundle.key }}
{{- end }}

{{/* "yes" if pods.caBundle names a ConfigMap or a Secret. Otherwise empty. */}}
{{- define "awares.hasCa" -}}
{{- if or .Values.pods.caBundle.configMap .Values.pods.caBundle.secret }}yes{{ end -}}
{{- end }}

{{/* The environment variables with the proxies and the certificate file. Some programs read the
variables of proxies in capital letters, and others in small letters. */}}
{{- define "awares.networkEnv" -}}
{{- range $name, $key := dict "HTTP_PROXY" "http" "HTTPS_PROXY" "https" "NO_PROXY" "noProxy" }}
{{- with get $.Values.pods.proxy $key }}
- {name: {{ $name }}, value: {{ . | quote }}}
- {name: {{ lower $name }}, value: {{ . | quote }}}
{{- end }}
{{- end }}
{{- if include "awares.hasCa" . }}
{{- range list "AWS_CA_BUNDLE" "SSL_CERT_FILE" "REQUESTS_CA_BUNDLE" }}
- {name: {{ . }}, value: {{ include "awares.caFile" $ | quote }}}
{{- end }}
{{- end }}
{{- end }}

{{/* The store's credentials as environment variables. */}}
{{- define "awares.storeEnv" -}}
{{- if .Values.store.existingSecret }}
{{- range list "AWS_ACCESS_KEY_ID" "AWS_SECRET_ACCESS_KEY" }}
- name: {{ . }}
  valueFrom:
    secretKeyRef: {name: {{ $.Values.store.existingSecret | quote }}, key: {{ . }}}
{{- end }}
{{- end }}
{{- end }}

{{/* The endpoint's bearer token as an environment variable. */}}
{{- define "awares.tokenEnv" -}}
{{- if .Values.endpoint.token.existingSecret }}
- name: AWARES_SERVE_TOKEN
  valueFrom:
    secretKeyRef: {name: {{ .Values.endpoint.token.existingSecret | quote }}, key: token}
{{- end }}
{{- end }}

{{/* Ray's authentication for the test pods, as environment variables. KubeRay sets these variables
for Ray's own pods. */}}
{{- define "awares.authEnv" -}}
- name: RAY_AUTH_MODE
  value: {{ .Values.auth.mode }}
{{- if ne .Values.auth.mode "disabled" }}
- name: RAY_AUTH_TOKEN
  valueFrom:
    secretKeyRef: {name: {{ .Values.auth.existingSecret | quote }}, key: auth_token}
{{- end }}
{{- end }}

{{/* Environment variables of every container that runs the project's image. */}}
{{- define "awares.homeEnv" -}}
- {name: HOME, value: /home/awares}
- {name: PYTHONPATH, value: "/opt/awares:/opt/awares/platform"}
- {name: PYTHONDONTWRITEBYTECODE, value: "1"}
{{- include "awares.networkEnv" . }}
{{- end }}

{{/* The variable that hides all GPUs from a container. NVIDIA's runtime may be the default runtime
of a node. It then shows all GPUs of the node to every container that does not refuse them. */}}
{{- define "awares.noGpuEnv" -}}
- {name: NVIDIA_VISIBLE_DEVICES, value: void}
{{- end }}

{{/* Environment variables of every Ray container. OMP_NUM_THREADS keeps each process from using all
cores. */}}
{{- define "awares.env" -}}
{{ include "awares.homeEnv" . }}
- {name: RAY_USAGE_STATS_ENABLED, value: "0"}
- {name: VLLM_NO_USAGE_STATS, value: "1"}
- name: RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH
  value: awares_platform.serve.proxy:middlewares
- {name: HF_HUB_DISABLE_TELEMETRY, value: "1"}
{{- /* A stopped job may need 25 seconds, and a few more seconds to end its session. By default, Ray
kills the job after 3 seconds. */}}
- {name: RAY_JOB_STOP_WAIT_TIME_S, value: "60"}
- {name: TOKENIZERS_PARALLELISM, value: "false"}
- {name: OMP_NUM_THREADS, value: {{ include "awares.setting" (list . "engine" "threads") | quote }}}
{{- include "awares.storeEnv" . }}
{{- end }}

{{/* "yes" if modelCache names a volume. Otherwise empty. */}}
{{- define "awares.hasCache" -}}
{{- if or .Values.modelCache.claim .Values.modelCache.hostPath }}yes{{ end -}}
{{- end }}

{{/* The variables by which the project and Hugging Face find the volume of modelCache. */}}
{{- define "awares.cacheEnv" -}}
{{- if include "awares.hasCache" . }}
- {name: AWARES_CACHE, value: /var/cache/awares}
- {name: HF_HOME, value: /var/cache/awares/huggingface}
{{- end }}
{{- end }}

{{/* The volumes of a pod that runs the project's image. Input: root, shm (size of /dev/shm, or
empty), setup (whether the pod reads setup.toml), keys (name of the Secret with the keys file),
cache (whether the pod loads models). */}}
{{- define "awares.volumes" -}}
- {name: tmp, emptyDir: {}}
- {name: home, emptyDir: {}}
{{- if .shm }}
- name: shm
  emptyDir: {medium: Memory, sizeLimit: {{ .shm }}}
{{- end }}
{{- if .setup }}
- name: setup
  configMap: {name: {{ include "awares.setupName" .root }}}
{{- end }}
{{- if .keys }}
- name: keys
  secret: {secretName: {{ .keys | quote }}, items: [{key: keys.json, path: keys.json}]}
{{- end }}
{{- $pods := .root.Values.pods }}
{{- if include "awares.hasCa" .root }}
- name: ca
  {{- if $pods.caBundle.configMap }}
  configMap: {name: {{ $pods.caBundle.configMap | quote }}}
  {{- else }}
  secret: {secretName: {{ $pods.caBundle.secret | quote }}}
  {{- end }}
{{- end }}
{{- if and .cache (include "awares.hasCache" .root) }}
- name: models
  {{- with .root.Values.modelCache.claim }}
  persistentVolumeClaim: {claimName: {{ . | quote }}}
  {{- else }}
  hostPath: {path: {{ .root.Values.modelCache.hostPath | quote }}, type: Directory}
  {{- end }}
{{- end }}
{{- with $pods.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "awares.mounts" -}}
- {name: tmp, mountPath: /tmp}
- {name: home, mountPath: /home/awares}
{{- if .shm }}
- {name: shm, mountPath: /dev/shm}
{{- end }}
{{- if .setup }}
- {name: setup, mountPath: /etc/awares, readOnly: true}
{{- end }}
{{- if .keys }}
- {name: keys, mountPath: /etc/awares-keys, readOnly: true}
{{- end }}
{{- if include "awares.hasCa" .root }}
- {name: ca, mountPath: /etc/awares-ca, readOnly: true}
{{- end }}
{{- if and .cache (include "awares.hasCache" .root) }}
- {name: models, mountPath: /var/cache/awares}
{{- end }}
{{- with .root.Values.pods.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* The fields that all pod specs share. They give a pod no token of the Kubernetes API. */}}
{{- define "awares.plainPod" -}}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . | quote }}
  {{- end }}
{{- end }}
{{- range $key := list "affinity" "runtimeClassName" "schedulerName" }}
{{- with get $.Values.pods $key }}
{{ $key }}: {{ toJson . }}
{{- end }}
{{- end }}
securityContext:
  {{- include "awares.podSecurity" . | trim | nindent 2 }}
{{- end }}

{{/* The field initContainers of a pod, with the containers in pods.initContainers. */}}
{{- define "awares.initContainers" -}}
{{- with .Values.pods.initContainers }}
initContainers:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "awares.plainContainer" -}}
image: {{ include "awares.image" . | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
workingDir: /opt/awares
{{- with .Values.pods.envFrom }}
envFrom:
  {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  {{- include "awares.containerSecurity" . | nindent 2 }}
{{- end }}
