{{/* What agent.mode needs, of the pod. */}}
{{- define "thermocline.agentPodSecurityContext" }}
# Files of cgroups belong to root.
runAsUser: 0
runAsGroup: 0
{{- with .seLinuxOptions }}
seLinuxOptions: {{- toYaml . | nindent 2 }}
{{- end }}
seccompProfile: { type: RuntimeDefault }
{{- end }}

{{/* What agent.mode needs, of the container. */}}
{{- define "thermocline.agentSecurityContext" }}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
{{- if eq .mode "full" }}
capabilities:
  drop: [ALL]
  add:
    # Page frame numbers in /proc/PID/pagemap; kernel.numa_balancing; fanotify, which names who changed a file of ours; the
    # host's cgroup namespace, without which Linux 7.2 takes no command for a pod in lru_gen.
    - SYS_ADMIN
    # move_pages(2) on processes of other users, and their maps.
    - SYS_PTRACE
    # Opens /proc/PID/pagemap, which belongs to the process's user and nobody else may read.
    - DAC_READ_SEARCH
    # Writes /proc/PID/clear_refs, the age source of the engine `pages`: the only one on Linux 6.1 with a slow node of plain memory.
    - DAC_OVERRIDE
# The runtime's default lacks move_pages. This profile has it, and little of the rest: no ptrace, no mount, no bpf.
seccompProfile: { type: Localhost, localhostProfile: {{ .seccomp.profile }} }
# AppArmor counts maps and move_pages as tracing, which the runtime's profile allows within a pod only.
appArmorProfile: { type: Unconfined }
{{- else }}
# Root owns the files that are written: nothing is added.
capabilities: { drop: [ALL] }
{{- end }}
{{- end }}
