{{/* Where people write annotations of ours. */}}
{{- define "thermocline.annotatedKinds" -}}
resourceRules:
  - apiGroups: [""]
    apiVersions: [v1]
    operations: [CREATE, UPDATE]
    resources: [pods, namespaces]
  - apiGroups: [apps]
    apiVersions: [v1]
    operations: [CREATE, UPDATE]
    resources: [deployments, statefulsets, daemonsets]
  - apiGroups: [batch]
    apiVersions: [v1]
    operations: [CREATE, UPDATE]
    resources: [jobs, cronjobs]
{{- end }}

{{/* Where an object, `object` or `oldObject`, has them: in itself, or in its template. */}}
{{- define "thermocline.annotated" -}}
object.kind in ['Pod', 'Namespace'] ? dyn({{ . }})
: object.kind == 'CronJob' ? dyn({{ . }}).spec.jobTemplate.spec.template
: dyn({{ . }}).spec.template
{{- end }}

{{/* What both policies about annotations look at. */}}
{{- define "thermocline.annotationVariables" -}}
- name: pod
  expression: >-
    {{- include "thermocline.annotated" "object" | nindent 4 }}
- name: before
  expression: >-
    oldObject == null ? dyn({}) :
    {{- include "thermocline.annotated" "oldObject" | nindent 4 }}
- name: annotations
  expression: >-
    has(variables.pod.metadata) && has(variables.pod.metadata.annotations) ? variables.pod.metadata.annotations : dyn({})
- name: old
  expression: >-
    has(variables.before.metadata) && has(variables.before.metadata.annotations) ? variables.before.metadata.annotations : dyn({})
# Our keys that are new, or have another value.
- name: written
  expression: >-
    variables.annotations.filter(key, (key.startsWith('thermocline.io/') || key.startsWith('container.thermocline.io/'))
    && !(key in variables.old && variables.old[key] == variables.annotations[key]))
{{- end }}
