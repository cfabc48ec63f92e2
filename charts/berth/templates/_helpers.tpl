{{/* Objects are named after the release, so that `helm install berth` gives `berth`. */}}
{{- define "berth.name" -}}
{{ .Release.Name | trunc 40 | trimSuffix "-" }}
{{- end }}

{{- define "berth.selector" -}}
app.kubernetes.io/name: berth
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "berth.labels" -}}
{{ include "berth.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{- define "berth.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}

{{/* Berth's own user name, as the API server sees it. */}}
{{- define "berth.username" -}}
system:serviceaccount:{{ .Release.Namespace }}:{{ include "berth.name" . }}
{{- end }}

{{/* CEL: whether the request comes from the break-glass group. */}}
{{- define "berth.breakGlass" -}}
{{- with .Values.policies.breakGlassGroup -}}
request.userInfo.?groups.orValue([]).exists(g, g == {{ . | squote }})
{{- else -}}
false
{{- end }}
{{- end }}

{{/* What every container of Berth may do: nothing but run. */}}
{{- define "berth.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{- define "berth.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "berth.databaseMounts" -}}
- {name: database, mountPath: /etc/berth/database, readOnly: true}
{{- if or .Values.database.ca.configMap .Values.database.ca.secret }}
- {name: database-ca, mountPath: /etc/berth/database-ca, readOnly: true}
{{- end }}
{{- end }}

{{/* Takes a dict of `root` and `secret`. A whole folder is mounted, not one file: rotated credentials then appear in it. */}}
{{- define "berth.databaseVolumes" -}}
{{- $database := .root.Values.database -}}
- name: database
  secret:
    secretName: {{ .secret }}
    defaultMode: 0440
    items: [{key: {{ $database.key | quote }}, path: url}]
{{- with $database.ca.configMap }}
- name: database-ca
  configMap:
    name: {{ . }}
    items: [{key: {{ $database.ca.key | quote }}, path: ca.crt}]
{{- end }}
{{- with $database.ca.secret }}
- name: database-ca
  secret:
    secretName: {{ . }}
    defaultMode: 0440
    items: [{key: {{ $database.ca.key | quote }}, path: ca.crt}]
{{- end }}
{{- end }}
