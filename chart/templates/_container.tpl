{{- /*
One container of the gate: (dict "root" $ "name" … "command" … "timeout" …), and "phase"
where it is another than the settings'.
*/ -}}
{{- define "migration-gate.container" -}}
{{- $gate := include "migration-gate.values" .root | fromYaml -}}
{{- $database := $gate.database -}}
{{- $isCheck := eq .command "check" -}}
{{- $user := $database.user -}}
{{- if and $isCheck $database.checkUser -}}
{{- $user = $database.checkUser -}}
{{- end -}}
{{- if not (or $database.host $database.urlSecret.name $gate.envFrom) -}}
{{- fail "gate.database needs a host, or a urlSecret with the whole URL" -}}
{{- end -}}
name: {{ .name }}
image: {{ include "migration-gate.image" .root | quote }}
imagePullPolicy: {{ $gate.image.pullPolicy }}
args: [{{ .command }}]
env:
{{- if $database.urlSecret.name }}
  # A file: what it holds is in no `kubectl describe`, and is read again at each attempt.
  - name: DATABASE_URL_FILE
    value: /run/secrets/migration-gate/{{ $database.urlSecret.key }}
{{- else if $database.host }}
  - name: POSTGRES_HOST
    value: {{ $database.host | quote }}
  - name: POSTGRES_PORT
    value: {{ $database.port | quote }}
  {{- with $database.name }}
  - name: POSTGRES_DB
    value: {{ . | quote }}
  {{- end }}
  {{- with $user }}
  - name: POSTGRES_USER
    value: {{ . | quote }}
  {{- end }}
  {{- with $database.sslMode }}
  - name: POSTGRES_SSL_MODE
    value: {{ . | quote }}
  {{- end }}
  {{- with include "migration-gate.passwordSecret" (dict "gate" $gate "isCheck" $isCheck) | fromYaml }}
  # A file: what it holds is in no `kubectl describe`, and is read again at each attempt.
  - name: POSTGRES_PASSWORD_FILE
    value: /run/secrets/migration-gate/{{ .key }}
  {{- end }}
{{- end }}
  # Before the platform's own limit, so that the last line says why.
  - name: GATE_TIMEOUT
    value: {{ $gate.settings.GATE_TIMEOUT | default .timeout | quote }}
{{- if and $isCheck (not $gate.settings.GATE_WAIT_TIMEOUT) }}
  # The Job may not have begun yet.
  - name: GATE_WAIT_TIMEOUT
    value: {{ $gate.check.waitTimeout | quote }}
{{- end }}
{{- $settings := omit $gate.settings "GATE_TIMEOUT" }}
{{- with .phase }}
{{- $settings = merge (dict "GATE_PHASE" .) $settings }}
{{- end }}
{{- range $name, $value := $settings }}
  - name: {{ $name }}
    value: {{ $value | quote }}
{{- end }}
{{- if $gate.telemetry.endpoint }}
  - name: OTEL_EXPORTER_OTLP_ENDPOINT
    value: {{ $gate.telemetry.endpoint | quote }}
  {{- if $gate.telemetry.headersSecret.name }}
  - name: OTEL_EXPORTER_OTLP_HEADERS
    valueFrom:
      secretKeyRef:
        name: {{ $gate.telemetry.headersSecret.name }}
        key: {{ $gate.telemetry.headersSecret.key }}
  {{- end }}
{{- end }}
  # Two fields of each log line.
  - name: POD_NAME
    valueFrom:
      fieldRef:
        fieldPath: metadata.name
  - name: POD_NAMESPACE
    valueFrom:
      fieldRef:
        fieldPath: metadata.namespace
{{- with $gate.env }}
{{ toYaml . | indent 2 }}
{{- end }}
{{- with $gate.envFrom }}
envFrom:
{{ toYaml . | indent 2 }}
{{- end }}
# The last log line, which says why the gate is closed, is shown by `kubectl describe pod`.
terminationMessagePolicy: FallbackToLogsOnError
resources:
{{ toYaml $gate.resources | indent 2 }}
# Complete by itself: the pod may say nothing of all this.
securityContext:
  runAsNonRoot: true
  {{- with $gate.runAsUser }}
  runAsUser: {{ . | int }}
  {{- end }}
  {{- with $gate.runAsGroup }}
  runAsGroup: {{ . | int }}
  {{- end }}
  allowPrivilegeEscalation: false
  # Nothing is written.
  readOnlyRootFilesystem: true
  capabilities:
    drop: [ALL]
  seccompProfile:
    type: RuntimeDefault
{{- $mounts := include "migration-gate.mounts" (dict "gate" $gate "isCheck" $isCheck) | fromYamlArray }}
{{- with $mounts }}
volumeMounts:
{{ toYaml . | indent 2 }}
{{- end }}
{{- end -}}

{{- /* The secret of the login: (dict "gate" … "isCheck" …); nothing where there is none. */ -}}
{{- define "migration-gate.passwordSecret" -}}
{{- $database := .gate.database -}}
{{- if not $database.urlSecret.name -}}
{{- if and .isCheck $database.checkUser -}}
{{- if $database.checkPasswordSecret.name -}}
{{ toYaml $database.checkPasswordSecret }}
{{- end -}}
{{- else if $database.passwordSecret.name -}}
{{ toYaml $database.passwordSecret }}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "migration-gate.mounts" -}}
{{- $prefix := ternary "migration-gate-check" "migration-gate" .isCheck -}}
{{- if or .gate.migrations.configMap .gate.migrations.imageVolume }}
- name: migration-gate-migrations
  mountPath: /migrations
  readOnly: true
{{- end }}
{{- $secret := include "migration-gate.passwordSecret" . | fromYaml }}
{{- if or $secret.name .gate.database.urlSecret.name }}
# The whole volume, without subPath: only so a rotated secret arrives.
- name: {{ $prefix }}-database
  mountPath: /run/secrets/migration-gate
  readOnly: true
{{- end }}
{{- with .gate.volumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- /*
The volumes of the gate's containers: (dict "root" $ "command" "migrate" "isOurs" true). In a pod of
the chart's own the secret is for its group alone.
*/ -}}
{{- define "migration-gate.volumesOf" -}}
{{- $gate := include "migration-gate.values" .root | fromYaml -}}
{{- with $gate.migrations.configMap }}
- name: migration-gate-migrations
  configMap:
    name: {{ . }}
{{- end }}
{{- with $gate.migrations.imageVolume }}
- name: migration-gate-migrations
  image:
    reference: {{ . | quote }}
    pullPolicy: IfNotPresent
{{- end }}
{{- $isCheck := eq .command "check" }}
{{- $isOurs := and .isOurs $gate.runAsGroup }}
{{- $secret := include "migration-gate.passwordSecret" (dict "gate" $gate "isCheck" $isCheck) | fromYaml }}
{{- with $secret.name | default $gate.database.urlSecret.name }}
- name: {{ ternary "migration-gate-check" "migration-gate" $isCheck }}-database
  secret:
    secretName: {{ . }}
    {{- if $isOurs }}
    # For the pod's fsGroup, and not for others.
    defaultMode: 0440
    {{- else }}
    # The pod may have no fsGroup, and the gate's user is not the file's owner.
    defaultMode: 0444
    {{- end }}
{{- end }}
{{- with $gate.volumes }}
{{ toYaml . }}
{{- end }}
{{- end -}}
