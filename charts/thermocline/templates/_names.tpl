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
{{- with .root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
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
{{- $values := .root.Values -}}
{{- $registry := coalesce .image.registry $values.global.imageRegistry $values.image.registry -}}
{{- $name := printf "%s/%s" $registry .image.repository -}}
{{- if .image.digest -}}
{{ printf "%s@%s" $name .image.digest }}
{{- else -}}
{{ printf "%s:%s" $name (coalesce .image.tag $values.image.tag .root.Chart.AppVersion) }}
{{- end -}}
{{- end }}

{{/* Of a pod: the release's and those that a chart around this one sets, which may be names alone. */}}
{{- define "thermocline.imagePullSecrets" -}}
{{- $secrets := list -}}
{{- range concat .Values.global.imagePullSecrets .Values.imagePullSecrets -}}
{{- $secrets = append $secrets (kindIs "string" . | ternary (dict "name" .) .) -}}
{{- end -}}
{{- with $secrets | uniq }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* Of the agents or the controller, given (dict "root" $ "component" "agent"). */}}
{{- define "thermocline.serviceAccountName" -}}
{{- $account := (index .root.Values .component).serviceAccount -}}
{{- default (printf "%s-%s" (include "thermocline.fullname" .root) .component) $account.name -}}
{{- end }}

{{- define "thermocline.serviceAccount" -}}
{{- $account := (index .root.Values .component).serviceAccount -}}
{{- if $account.create -}}
apiVersion: v1
kind: ServiceAccount
metadata:
  name: {{ include "thermocline.serviceAccountName" . }}
  namespace: {{ .root.Release.Namespace }}
  labels: {{- include "thermocline.labels" . | nindent 4 }}
  {{- with $account.annotations }}
  annotations: {{- toYaml . | nindent 4 }}
  {{- end }}
automountServiceAccountToken: false
{{- end }}
{{- end }}

{{/* Whether the cluster serves ValidatingAdmissionPolicies; helm template knows no kinds, only versions. */}}
{{- define "thermocline.hasAdmissionPolicies" -}}
{{- $served := .Capabilities.APIVersions.Has "admissionregistration.k8s.io/v1/ValidatingAdmissionPolicy" -}}
{{- $known := and (.Capabilities.APIVersions.Has "admissionregistration.k8s.io/v1") (semverCompare ">=1.30.0-0" .Capabilities.KubeVersion.Version) -}}
{{- if or $served $known -}}yes{{- end -}}
{{- end }}

{{/* Whether the controller labels nodes: only where a policy can hold it to that label. */}}
{{- define "thermocline.labelsSlowTier" -}}
{{- if and .Values.controller.slowTierLabel (include "thermocline.hasAdmissionPolicies" .) -}}yes{{- end -}}
{{- end }}
