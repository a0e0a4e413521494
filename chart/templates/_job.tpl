{{- /*
A Job that migrates.

Its name has the revision and a sum of its pod: a Job cannot be changed, so another pod
is another Job, and Helm removes the one before. A hook has one name, and replaces itself.
*/ -}}
{{- define "migration-gate.job" -}}
{{- include "migration-gate.jobOf" (dict "root" .) -}}
{{- end -}}

{{- /*
A Job that applies what waits for the rollout; the others have GATE_PHASE: before among
the settings. Nothing but a hook comes after a rollout, so there has to be one.
*/ -}}
{{- define "migration-gate.afterJob" -}}
{{- $gate := include "migration-gate.values" . | fromYaml -}}
{{- if eq $gate.job.hook "none" -}}
{{- fail "migration-gate.afterJob needs gate.job.hook: helm or argocd, which comes after the rollout" -}}
{{- end -}}
{{- if ne ($gate.settings.GATE_PHASE | default "") "before" -}}
{{- fail "migration-gate.afterJob needs GATE_PHASE: before among gate.settings, for the gates before it" -}}
{{- end -}}
{{- include "migration-gate.jobOf" (dict "root" . "phase" "after") -}}
{{- end -}}

{{- /* (dict "root" $), and "phase" where it is another than the settings'. */ -}}
{{- define "migration-gate.jobOf" -}}
{{- $gate := include "migration-gate.values" .root | fromYaml -}}
{{- $pod := include "migration-gate.jobPod" . -}}
{{- $hook := include "migration-gate.hook" (dict "gate" $gate "ahead" 0 "phase" .phase) | fromYaml -}}
{{- $name := include "migration-gate.name" .root -}}
{{- with .phase -}}
{{- $name = printf "%s-%s" $name . -}}
{{- end -}}
{{- if not $hook -}}
{{- $name = printf "%s-%d-%s" $name (int .root.Release.Revision) ($pod | sha256sum | trunc 8) -}}
{{- end -}}
apiVersion: batch/v1
kind: Job
metadata:
  name: {{ $name }}
  labels:
    {{- include "migration-gate.labels" .root | nindent 4 }}
  {{- with merge (deepCopy $gate.job.annotations) $hook }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
spec:
  backoffLimit: {{ $gate.job.backoffLimit | int }}
  # All attempts, with pulling the image: Kubernetes deletes a pod that is late, and its
  # log with it.
  activeDeadlineSeconds: {{ $gate.job.activeDeadlineSeconds | int }}
  ttlSecondsAfterFinished: {{ $gate.job.ttlSecondsAfterFinished | int }}
  # No second pod while the first is still stopping.
  podReplacementPolicy: Failed
  podFailurePolicy:
    rules:
      # A drained node is not a failed migration, and uses up no retry.
      - action: Ignore
        onPodConditions:
          - type: DisruptionTarget
            status: "True"
      # The gate said why it is closed; it has retried by itself what time mends.
      - action: FailJob
        onExitCodes:
          containerName: gate
          operator: In
          values: [1]
  template:
    {{- $pod | nindent 4 }}
{{- end -}}

{{- define "migration-gate.jobPod" -}}
{{- $gate := include "migration-gate.values" .root | fromYaml -}}
metadata:
  labels:
    {{- include "migration-gate.labels" .root | nindent 4 }}
    {{- with $gate.job.podLabels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- with $gate.job.podAnnotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
spec:
  restartPolicy: Never
  # Time to cancel the statement, roll back and write the verdict.
  terminationGracePeriodSeconds: 30
  # A Service named "postgres" or "gate" would set POSTGRES_PORT=tcp://… here.
  enableServiceLinks: false
  automountServiceAccountToken: false
  {{- with include "migration-gate.serviceAccountName" .root }}
  serviceAccountName: {{ . }}
  {{- end }}
  {{- with $gate.image.pullSecrets }}
  imagePullSecrets:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $gate.job.priorityClassName }}
  priorityClassName: {{ . }}
  {{- end }}
  {{- with $gate.job.nodeSelector }}
  nodeSelector:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $gate.job.tolerations }}
  tolerations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $gate.job.affinity }}
  affinity:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  securityContext:
    runAsNonRoot: true
    {{- with $gate.runAsGroup }}
    fsGroup: {{ . | int }}
    {{- end }}
    seccompProfile:
      type: RuntimeDefault
  containers:
    {{- $container := include "migration-gate.container" (dict "root" .root "name" "gate" "command" "migrate" "timeout" $gate.job.timeout "phase" .phase) }}
    - {{ $container | indent 6 | trim }}
  {{- with include "migration-gate.volumesOf" (dict "root" .root "command" "migrate" "isOurs" true) | trim }}
  volumes:
    {{- . | nindent 4 }}
  {{- end }}
{{- end -}}
