{{/* The agent's own file: settings of the node, given those of its pool. Policies come from the API server. */}}
{{- define "thermocline.agentConfig" -}}
listen: 0.0.0.0:{{ .port }}
stateFile: /run/thermocline/state
engine: {{ .config.engine }}
kernelDemotion: {{ .config.kernelDemotion }}
interval: {{ .config.interval }}
{{- with .config.tiers }}
tiers: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
