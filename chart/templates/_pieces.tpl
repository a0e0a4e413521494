{{- /*
The application's own pods migrate: an init container, the first of them.

    initContainers:
      {{- include "migration-gate.initContainer" . | nindent 8 }}
    volumes:
      {{- include "migration-gate.volumes" . | nindent 8 }}
*/ -}}
{{- define "migration-gate.initContainer" -}}
{{- $gate := include "migration-gate.values" . | fromYaml -}}
{{- $container := include "migration-gate.container" (dict "root" . "name" $gate.initContainer.name "command" "migrate" "timeout" $gate.initContainer.timeout) -}}
- {{ $container | indent 2 | trim }}
{{- end -}}

{{- define "migration-gate.volumes" -}}
{{- include "migration-gate.volumesOf" (dict "root" . "command" "migrate" "isOurs" false) | trim -}}
{{- end -}}

{{- /*
A Job migrates, and the application's pods only wait until it has: their init container,
and its volumes.

    initContainers:
      {{- include "migration-gate.check" . | nindent 8 }}
    volumes:
      {{- include "migration-gate.checkVolumes" . | nindent 8 }}
*/ -}}
{{- define "migration-gate.check" -}}
{{- $gate := include "migration-gate.values" . | fromYaml -}}
{{- $container := include "migration-gate.container" (dict "root" . "name" $gate.check.name "command" "check" "timeout" $gate.check.timeout) -}}
- {{ $container | indent 2 | trim }}
{{- end -}}

{{- define "migration-gate.checkVolumes" -}}
{{- include "migration-gate.volumesOf" (dict "root" . "command" "check" "isOurs" false) | trim -}}
{{- end -}}

{{- define "migration-gate.serviceAccountName" -}}
{{- $gate := include "migration-gate.values" . | fromYaml -}}
{{- if or $gate.serviceAccount.create $gate.serviceAccount.name -}}
{{- $gate.serviceAccount.name | default (include "migration-gate.name" .) -}}
{{- end -}}
{{- end -}}

{{- /* The account of the Job's pod, where serviceAccount.create is true. */ -}}
{{- define "migration-gate.serviceAccount" -}}
{{- $gate := include "migration-gate.values" . | fromYaml -}}
{{- if $gate.serviceAccount.create -}}
apiVersion: v1
kind: ServiceAccount
metadata:
  name: {{ include "migration-gate.serviceAccountName" . }}
  labels:
    {{- include "migration-gate.labels" . | nindent 4 }}
  {{- with include "migration-gate.hook" (dict "gate" $gate "ahead" 1) | fromYaml | merge (deepCopy $gate.serviceAccount.annotations) }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
# The cloud's webhook mounts a token of its own.
automountServiceAccountToken: false
{{- end -}}
{{- end -}}

{{- /* What the Job's pod may reach: DNS, the database, and the ports that are named. */ -}}
{{- define "migration-gate.networkPolicy" -}}
{{- $gate := include "migration-gate.values" . | fromYaml -}}
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: {{ include "migration-gate.name" . }}
  labels:
    {{- include "migration-gate.labels" . | nindent 4 }}
  {{- with include "migration-gate.hook" (dict "gate" $gate "ahead" 1) | fromYaml }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
spec:
  podSelector:
    matchLabels:
      app.kubernetes.io/name: {{ include "migration-gate.name" . }}
  policyTypes: [Ingress, Egress]
  egress:
    - ports:
        - {port: 53, protocol: UDP}
        - {port: 53, protocol: TCP}
    - ports:
        {{- range prepend $gate.networkPolicy.ports $gate.database.port }}
        - {port: {{ . | int }}, protocol: TCP}
        {{- end }}
      {{- with $gate.networkPolicy.to }}
      to:
        {{- toYaml . | nindent 8 }}
      {{- end }}
{{- end -}}

{{- /*
Annotations of a hook; `ahead` is how much earlier than the Job, `phase` is "after" for
the Job that follows the rollout.
*/ -}}
{{- define "migration-gate.hook" -}}
{{- $job := .gate.job -}}
{{- $isAfter := eq (.phase | default "") "after" -}}
{{- $order := sub (int $job.order) .ahead | toString -}}
{{- if eq $job.hook "helm" }}
# After the rollout, which --wait waits for; or before anything is updated, and at
# the first install after everything was created, because a database that the same chart
# brings does not exist any earlier.
helm.sh/hook: {{ ternary "post-install,post-upgrade" "post-install,pre-upgrade" $isAfter }}
# The failed Job stays, and with it the log, until the next attempt.
helm.sh/hook-delete-policy: before-hook-creation
helm.sh/hook-weight: {{ $order | quote }}
{{- else if eq $job.hook "argocd" }}
# In the sync itself, after the secrets of an earlier wave and before the application;
# or after all of it, when the application is healthy.
argocd.argoproj.io/hook: {{ ternary "PostSync" "Sync" $isAfter }}
argocd.argoproj.io/hook-delete-policy: BeforeHookCreation
argocd.argoproj.io/sync-wave: {{ $order | quote }}
{{- end }}
{{- end -}}
