{{/*
The DaemonSets, each with its name, pool and settings: those of agent.pools, then the one of all other nodes. One never selects a node
that one before it selects.
*/}}
{{- define "thermocline.agentPools" -}}
{{- $name := printf "%s-agent" (include "thermocline.fullname" .) }}
{{- $common := omit .Values.agent "pools" }}
{{- $taken := list }}
{{- $names := list }}
{{- $pools := list }}
{{- range .Values.agent.pools }}
{{- if has .name $names }}
{{- fail (printf "agent.pools: two are named %s" .name) }}
{{- end }}
{{- $names = append $names .name }}
{{- $agent := mergeOverwrite (deepCopy $common) (omit (deepCopy .) "name") }}
{{- $_ := set $agent "affinity" (include "thermocline.affinityWithout" (dict "affinity" $agent.affinity "taken" $taken) | fromYaml) }}
{{- $pools = append $pools (dict "name" (printf "%s-%s" $name .name) "pool" .name "agent" $agent) }}
{{- range $label, $value := .nodeSelector }}
{{- $taken = append $taken (dict "key" $label "operator" "NotIn" "values" (list $value)) }}
{{- end }}
{{- end }}
{{- $agent := deepCopy $common }}
{{- $_ := set $agent "affinity" (include "thermocline.affinityWithout" (dict "affinity" $agent.affinity "taken" $taken) | fromYaml) }}
{{- append $pools (dict "name" $name "pool" "default" "agent" $agent) | toYaml }}
{{- end }}

{{/* The affinity, and no node that these expressions exclude. A node has to match one of the terms: each has them all. */}}
{{- define "thermocline.affinityWithout" -}}
{{- $affinity := deepCopy .affinity }}
{{- if .taken }}
{{- $terms := list }}
{{- range dig "nodeAffinity" "requiredDuringSchedulingIgnoredDuringExecution" "nodeSelectorTerms" (list (dict)) $affinity }}
{{- $terms = append $terms (set (deepCopy .) "matchExpressions" (concat (.matchExpressions | default list) $.taken)) }}
{{- end }}
{{- $required := dict "requiredDuringSchedulingIgnoredDuringExecution" (dict "nodeSelectorTerms" $terms) }}
{{- $affinity = mergeOverwrite $affinity (dict "nodeAffinity" $required) }}
{{- end }}
{{- toYaml $affinity }}
{{- end }}
