{{/* The names are fixed: one Runway per cluster, and the Roles of the tenants name its service account. */}}
{{- define "runway.namespace" -}}
{{- if ne .Release.Namespace "runway" -}}
{{- fail "the namespace must be runway: the tenants' Roles name the service account runway in it; use --namespace runway" -}}
{{- end -}}
{{ .Release.Namespace }}
{{- end }}

{{- define "runway.leaseNamespace" -}}
{{ .Values.leaseNamespace | default (include "runway.namespace" .) }}
{{- end }}

{{/* The labels of the pod, which the Service, the NetworkPolicy and the ServiceMonitor select. */}}
{{- define "runway.selector" -}}
app.kubernetes.io/name: runway
app.kubernetes.io/component: control-plane
{{- end }}

{{- define "runway.labels" -}}
{{ include "runway.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{- define "runway.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}
{{- end }}

{{- define "runway.policy" -}}
{{- if kindIs "string" .Values.policy -}}
{{ required "the value `policy` is required: --set-file policy=FILE" .Values.policy }}
{{- else -}}
{{ toYaml .Values.policy }}
{{- end -}}
{{- end }}

{{- define "runway.podSecurity" -}}
runAsNonRoot: true
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{- define "runway.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}

{{/* Where the pods run: Runway's, and the one that checks the policy. */}}
{{- define "runway.placement" -}}
{{- with .Values.imagePullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* A file of the chart with the links of this installation. */}}
{{- define "runway.linked" -}}
{{- $placeholder := "https://github.com/example-org/runway/blob/main/docs/" -}}
{{ .root.Files.Get .file | replace $placeholder (printf "%s/" (trimSuffix "/" .root.Values.runbookBaseUrl)) }}
{{- end }}
