{{- define "thermocline.name" -}}
{{ default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "thermocline.fullname" -}}
{{- $name := include "thermocline.name" . -}}
{{- if .Values.fullnameOverride -}}
{{ .Values.fullnameOverride | trunc 50 | trimSuffix "-" }}
{{- else if contains $name .Release.Name -}}
{{ .Release.Name | trunc 50 | trimSuffix "-" }}
{{- else -}}
{{ printf "%s-%s" .Release.Name $name | trunc 50 | trimSuffix "-" }}
{{- end -}}
{{- end }}

{{/* Labels of one component, given (dict "root" $ "component" "agent"); without a component, of what is everybody's. */}}
{{- define "thermocline.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" | quote }}
{{ include "thermocline.selectorLabels" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/part-of: thermocline
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
{{- end }}

{{/* Never to change: a DaemonSet's and a Deployment's selectors are immutable. */}}
{{- define "thermocline.selectorLabels" -}}
app.kubernetes.io/name: {{ include "thermocline.name" .root }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
{{- with .component }}
app.kubernetes.io/component: {{ . }}
{{- end }}
{{- end }}

{{/* An image, given (dict "root" $ "image" .Values.agent.image). */}}
{{- define "thermocline.image" -}}
{{- $name := printf "%s/%s" .root.Values.image.registry .image.repository -}}
{{- if .image.digest -}}
{{ printf "%s@%s" $name .image.digest }}
{{- else -}}
{{ printf "%s:%s" $name (default .root.Chart.AppVersion .root.Values.image.tag) }}
{{- end -}}
{{- end }}

{{/* Whether the cluster serves ValidatingAdmissionPolicies; helm template knows no kinds, only versions. */}}
{{- define "thermocline.hasAdmissionPolicies" -}}
{{- $served := .Capabilities.APIVersions.Has "admissionregistration.k8s.io/v1/ValidatingAdmissionPolicy" -}}
{{- $known := and (.Capabilities.APIVersions.Has "admissionregistration.k8s.io/v1") (semverCompare ">=1.30.0-0" .Capabilities.KubeVersion.Version) -}}
{{- if or $served $known -}}yes{{- end -}}
{{- end }}
